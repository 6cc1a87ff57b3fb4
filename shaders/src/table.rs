//! The list of every hand-tuned kernel. A new kernel is one file in `wgsl/` and one line here.

use crate::gemm::Skew;
use crate::probe::Probe;
use crate::rows::Op;
use crate::{Kernel, Target, attention, coop, gemm, pack, probe, rope, rows};

/// One hand-tuned kernel.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name of the file in `wgsl/`, without its extension; the names of the variants begin with it.
    pub name: &'static str,
    /// Every variant that the kernel has on a target, whether selection prefers it there or not.
    pub variants: fn(&Target) -> Vec<Kernel>,
}

/// Every hand-tuned kernel.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "attention_grad_kv_lanes",
        variants: |target| attention::grad_kv_variants(attention::Shape::lanes(target)),
    },
    Entry { name: "attention_grad_kv_tile", variants: |_| attention::grad_kv_variants(attention::Shape::Tile) },
    Entry {
        name: "attention_grad_q_lanes",
        variants: |target| attention::grad_q_variants(attention::Shape::lanes(target)),
    },
    Entry { name: "attention_grad_q_tile", variants: |_| attention::grad_q_variants(attention::Shape::Tile) },
    Entry { name: "attention_lanes", variants: |target| attention::forward_variants(attention::Shape::lanes(target)) },
    Entry { name: "attention_tile", variants: |_| attention::forward_variants(attention::Shape::Tile) },
    Entry { name: "gather_rows", variants: |_| rows::variants(Op::Gather) },
    Entry { name: "gemm_coop", variants: coop::variants },
    Entry {
        name: "gemm_panel",
        variants: |target| gemm::variants(gemm::Shape::panel(target), &[Skew::None, Skew::Narrow, Skew::ShortK]),
    },
    Entry {
        name: "gemm_thin",
        variants: |target| gemm::variants(gemm::Shape::panel(target), &[Skew::FewRows, Skew::FewColumns]),
    },
    Entry { name: "gemm_tile", variants: |_| gemm::variants(gemm::Shape::Tile, &[Skew::None, Skew::FewTiles]) },
    Entry { name: "pack_f16", variants: |_| pack::variants() },
    Entry { name: "probe_coop", variants: |target| probe::variants(Probe::Coop, target) },
    Entry { name: "probe_copy", variants: |target| probe::variants(Probe::Copy, target) },
    Entry { name: "probe_fma", variants: |target| probe::variants(Probe::Fma, target) },
    Entry { name: "rope", variants: |target| vec![rope::kernel(target)] },
    Entry { name: "scatter_add_rows", variants: |_| rows::variants(Op::ScatterAdd) },
    Entry { name: "scatter_rows", variants: |_| rows::variants(Op::Scatter) },
];

/// Every kernel of the table in every variant it has on `target`.
pub fn variants(target: &Target) -> impl Iterator<Item = Kernel> {
    TABLE.iter().flat_map(|entry| (entry.variants)(target))
}
