"""Makes the CUDA build of torch importable on a machine without CUDA.

The build links against two gigabytes of CUDA libraries that a CPU run loads but never calls. For each one that is not installed
this writes an empty shared library of the same name next to torch, backed by one library that defines the functions they would
export; a call returns an error code, which torch reports as "no GPU". Needs `cc` and `readelf`; does nothing if torch imports already
(a CPU build, or a full CUDA installation).
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARY = re.compile(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]")
FUNCTION = re.compile(r" UND ((?:cu[a-z]*[A-Z]|nccl|nvrtc|nvshmem)\w*)")


def main() -> None:
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0:
        return
    folder = Path(importlib.util.find_spec("torch").submodule_search_locations[0]) / "lib"
    libraries, functions = set(), set()
    for file in sorted(folder.glob("*.so")):
        command = ["readelf", "-W", "--dynamic", "--dyn-syms", str(file)]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        libraries.update(LIBRARY.findall(symbols))
        functions.update(FUNCTION.findall(symbols))
    installed = {path.name for path in folder.parents[1].glob("nvidia/**/*.so*")}

    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "stub.c"
        # 999 is cudaErrorUnknown, and a failure in every other CUDA library too.
        source.write_text("".join(f"int {name}(void) {{ return 999; }}\n" for name in sorted(functions)))
        shared(source, folder / "libno_cuda.so")
        source.write_text("")
        for name in sorted(libraries - installed):
            shared(source, folder / name, "-Wl,--no-as-needed,-rpath,$ORIGIN", folder / "libno_cuda.so")
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


def shared(source: Path, target: Path, *extra: object) -> None:
    """Compiles `source` into the shared library `target`, whose soname is its file name."""
    soname = f"-Wl,-soname,{target.name}"
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", target, soname, source, *extra], check=True)


if __name__ == "__main__":
    main()
