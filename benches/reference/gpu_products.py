"""Matrix products in PyTorch, in the shapes and precisions of `viral-wgpu bench kernels --json` on standard input. Prints one JSON object."""

import json
import statistics
import sys
import time

import torch

# Runs of a product, of which the median counts, after some that do not.
RUNS, WARM_UP = 20, 3

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [row for row in json.load(sys.stdin)["rows"] if row["kind"] == "product"]
    measured = [{"model": row["model"], "name": row["name"], "shape": row["shape"], "precision": row["precision"], "gflops": rate(row, device)} for row in rows]
    print(json.dumps({"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__, "rows": measured}))


def rate(row: dict, device: str) -> float:
    m, n, k, form = row["m"], row["n"], row["k"], row["form"]
    draw = lambda *shape: torch.rand(*shape, device=device, dtype=DTYPES[row["precision"]])
    a = draw(k, m).T if form[0] == "t" else draw(m, k)
    b = draw(n, k).T if form[1] == "t" else draw(k, n)
    times = []
    for _ in range(WARM_UP + RUNS):
        if device == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            torch.mm(a, b)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    return 2 * m * n * k / statistics.median(times[WARM_UP:]) / 1e9


if __name__ == "__main__":
    main()
