//! Tests over the whole kernel table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::gemm::{self, Form, Hook, Operand, Problem, Shape, Skew, Spec};
use crate::{Access, DeviceClass, Kernel, Storage, Target, attention, check, coop, pack, rope, rows, table};

/// Targets that differ in everything the kernels' text may depend on.
fn targets() -> Vec<Target> {
    let cpu = |lanes| Target { class: DeviceClass::Cpu, subgroup: lanes, ..Target::baseline() };
    let wide = Target { int64: true, max_workgroup_bytes: 32 << 10, ..cpu(Some((16, 16))) };
    vec![Target::baseline(), cpu(None), cpu(Some((4, 4))), cpu(Some((8, 8))), cpu(Some((16, 16))), wide]
}

/// Every kernel in every variant; many are the same on several targets.
fn all_variants() -> Vec<Kernel> {
    let kernels = targets().into_iter().flat_map(|target| table::variants(&target).collect::<Vec<_>>());
    kernels
        .map(|kernel| ((kernel.wgsl.clone(), kernel.name.clone()), kernel))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect()
}

#[test]
fn every_variant_translates_everywhere() {
    let failures = all_variants().into_iter().filter_map(|kernel| check::translate_everywhere(&kernel).err());
    let failures = failures.collect::<Vec<_>>();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_module_mixes_subgroup_operations_and_cooperative_matrices() {
    // Validation allows only what the record requires, so the records can be trusted, and no subgroup operation beside
    // cooperative matrices: see `check::parse`.
    let kernels = all_variants();
    let mut cooperative = kernels.iter().filter(|kernel| kernel.requires.cooperative_matrix.is_some());
    let mut mixed = cooperative.next().unwrap().clone();
    mixed.wgsl = mixed.wgsl.replace("step < last;", "step < subgroupMax(last);");
    assert!(check::translate_everywhere(&mixed).is_err());
}

#[test]
fn the_check_notices_a_record_that_does_not_tell_the_truth() {
    let kernel = rows::kernel(rows::Op::Gather, Storage::F32, true);
    let wrong = |change: fn(&mut Kernel)| {
        let mut changed = kernel.clone();
        change(&mut changed);
        check::translate_everywhere(&changed).unwrap_err()
    };
    assert!(wrong(|kernel| kernel.workgroup = [32, 1, 1]).contains("workgroup size is [64, 1, 1]"));
    assert!(wrong(|kernel| kernel.param_words = 6).contains("5 parameter words, the record says 6"));
    assert!(wrong(|kernel| kernel.bindings.truncate(2)).contains("bindings are"));
    assert!(wrong(|kernel| kernel.wgsl = kernel.wgsl.replace("fn main", "fn start")).contains("entry point `main`"));
    let subgroups = |kernel: &mut Kernel| {
        kernel.wgsl = kernel.wgsl.replace("let row = index[i];", "let row = subgroupAdd(index[i]);");
    };
    assert!(wrong(subgroups).contains("kernel `gather_rows_vec4`"));
    let mut honest = kernel.clone();
    subgroups(&mut honest);
    honest.requires.subgroups = true;
    assert_eq!(check::translate_everywhere(&honest), Ok(()));
}

#[test]
fn every_variant_fits_its_target() {
    for target in targets() {
        for kernel in table::variants(&target) {
            assert!(kernel.bindings.len() <= target.max_storage_buffers as usize, "{}", kernel.name);
            assert!(kernel.workgroup.iter().product::<u32>() <= target.max_workgroup_invocations, "{}", kernel.name);
            let module = check::parse(&kernel).unwrap();
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            let workgroup = module.global_variables.iter().map(|(_, variable)| variable);
            let workgroup = workgroup.filter(|variable| variable.space == naga::AddressSpace::WorkGroup);
            let bytes = workgroup.map(|variable| layouter[variable.ty].size).sum::<u32>();
            assert!(bytes <= target.max_workgroup_bytes, "{}: {bytes} bytes of workgroup memory", kernel.name);
        }
    }
}

#[test]
fn different_texts_have_different_names() {
    let kernels = all_variants();
    let texts = kernels.iter().map(|kernel| &kernel.wgsl).collect::<BTreeSet<_>>();
    let names = kernels.iter().map(|kernel| &kernel.name).collect::<BTreeSet<_>>();
    assert_eq!(texts.len(), names.len());
}

#[test]
fn the_table_lists_every_file_and_every_fragment_is_linked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        paths.sort();
        paths
    };
    let bodies = files("wgsl");
    let names = bodies.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names, table::TABLE.iter().map(|entry| entry.name).collect::<Vec<_>>());

    let texts = all_variants();
    for path in bodies.iter().chain(&files("lib")) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("// "), "{} has no opening comment", path.display());
        assert!(!text.contains("enable "), "{} has an enable line", path.display());
        // The rest may have lines that are repeated.
        let opening = text.lines().find(|line| !line.contains('$')).unwrap();
        let linked = texts.iter().any(|kernel| kernel.wgsl.contains(opening));
        let exported = include_str!("lib.rs").contains(path.file_name().unwrap().to_str().unwrap());
        assert!(linked || exported, "nothing links {}", path.display());
    }
}

#[test]
fn launches_write_the_words_that_the_kernels_read() {
    for target in targets() {
        let problem = Problem::dense(Form::NN, [2, 3, 4], 5, 6, 7);
        let spec = Spec::fit(Form::NN, &problem);
        let module = check::parse(&gemm::kernel(&spec, &target)).unwrap();
        let fields = gemm::PARAMS.map(|field| field.split(':').next().unwrap());
        assert_eq!(check::param_fields(&module).unwrap(), fields);
        assert_eq!(gemm::launch(&spec, &problem, &target).params.len(), gemm::PARAMS.len());

        let spec = coop::Spec { form: Form::NN, edge: 8, accumulate: false };
        let module = check::parse(&coop::kernel(&spec, &target)).unwrap();
        let launch = coop::launch(&coop::Problem { batch: 2, m: 9, n: 5, k: 8, parts: 3 }, &target);
        let fields = "m n k part parts column_groups count grid_x";
        assert_eq!(check::param_fields(&module).unwrap().join(" "), fields);
        assert_eq!(launch.params, [9, 5, 8, 4, 3, 1, 2 * 3 * 2, launch.groups[0]]);

        let module = check::parse(&pack::kernel(Storage::F32, true, 8)).unwrap();
        let launch = pack::launch(&packing(), &target);
        let names = check::param_fields(&module).unwrap();
        assert_eq!(names.join(" "), PACK_FIELDS);
        assert_eq!(launch.params, [5, 12, 2, 2, 4, 20, 1, 0, 300, 100, 2, 3, 0, 12, launch.groups[0]]);

        let heads = attention::Rows::dense(9, 4, 8);
        let problem = attention::Problem {
            batch: 2,
            queries: 9,
            keys: 9,
            heads: 4,
            groups: 2,
            ahead: 0,
            scale: 0.5,
            q: heads,
            k: heads,
            v: heads,
            dy: heads,
        };
        let op = attention::Op::Forward { out: true, lse: true };
        let fields = check::param_fields(&check::parse(&attention::kernel(op, 8, &target)).unwrap()).unwrap();
        assert_eq!(fields, attention::PARAMS);
        assert_eq!(attention::launch(op, &problem, &target).params.len(), attention::PARAMS.len());

        let x = attention::Rows { offset: 8, batch: 400, row: 40, head: 16 };
        let problem = rope::Problem { batch: 2, positions: 9, heads: 3, width: 16, x, inverse: true };
        let launch = rope::launch(&problem, &target);
        let fields = "positions row_cells half_cells sign x_offset x_batch x_row x_head row_tiles tiles grid_x";
        let kernel = rope::kernel(&target);
        assert_eq!(check::param_fields(&check::parse(&kernel).unwrap()).unwrap().join(" "), fields);
        assert_eq!(launch.params, [9, 6, 2, (-1f32).to_bits(), 2, 100, 10, 4, 2, 4, launch.groups[0]]);
        assert_eq!(launch.params.len(), kernel.param_words as usize);

        for op in rows::Op::ALL {
            let kernel = rows::kernel(op, Storage::F32, false);
            let problem = rows::Problem { rows: 5, count: 3, width: 7, scales: 11 };
            let launch = rows::launch(op, false, &problem, &target);
            let fields = check::param_fields(&check::parse(&kernel).unwrap()).unwrap();
            assert_eq!(fields, ["rows", "count", "cells", "scales", "grid_x"]);
            assert_eq!(launch.params, [5, 3, 7, 11, launch.groups[0]]);
        }
    }
}

/// Six matrices of 5 x 12 in one of 20 columns, to tiles of eight.
fn packing() -> pack::Problem {
    pack::Problem {
        batch: [1, 2, 3],
        rows: 5,
        columns: 12,
        edge: 8,
        offset: 4,
        row_stride: 20,
        column_stride: 1,
        batch_strides: [0, 300, 100],
        scales: 0,
    }
}

const PACK_FIELDS: &str = "rows columns row_tiles column_tiles offset row column batch_stride0 batch_stride1 batch_stride2 batch1 \
                           batch2 scales count grid_x";

/// Text that uses everything a hook may use.
fn hook(cell: &str) -> Hook {
    let wgsl = format!(
        "@group(0) @binding(4) var<storage, read> hook_bias: array<{cell}>;\n\
         @group(0) @binding(5) var<storage, read_write> hook_kept: array<{cell}>;\n\
         fn epilogue(value: Cell, at: At) -> Cell {{\n\
             let biased = value + hook_bias[p.h0 + at.column];\n\
             hook_kept[at.index] = biased;\n\
             return bitcast<f32>(p.h1) * f32(at.row + at.batch.x) * biased;\n\
         }}\n"
    );
    Hook { name: "bias".into(), wgsl, bindings: vec![Access::Read, Access::ReadWrite], param_words: 2 }
}

#[test]
fn products_with_a_hook_translate_everywhere() {
    for target in targets() {
        for form in Form::ALL {
            for (vec4, cell) in [(true, "vec4<f32>"), (false, "f32")] {
                for skew in Skew::ALL {
                    let spec = Spec {
                        form,
                        storage: [Storage::F32; 2],
                        vec4,
                        accumulate: false,
                        skew,
                        hook: Some(hook(cell)),
                    };
                    let kernel = gemm::kernel(&spec, &target);
                    assert_eq!(check::translate_everywhere(&kernel), Ok(()));
                    assert!(kernel.name.ends_with("_bias"), "{}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn vec4_is_offered_only_where_every_row_is_aligned() {
    let aligned = Problem::dense(Form::NT, [1, 2, 3], 5, 8, 12);
    assert!(aligned.vec4(Form::NT));
    assert!(!Problem { k: 10, ..aligned }.vec4(Form::NT));
    assert!(!Problem { n: 7, ..aligned }.vec4(Form::NT));
    assert!(!Problem { m: 5, ..aligned }.vec4(Form::TN));
    let shifted = Operand { offset: 2, ..aligned.a };
    assert!(!Problem { a: shifted, ..aligned }.vec4(Form::NT));
}

#[test]
fn operands_are_packed_four_at_a_time_only_where_every_row_is_aligned() {
    assert!(packing().vec4());
    let changes: [fn(&mut pack::Problem); 5] = [
        |problem| problem.columns = 10,
        |problem| problem.offset = 2,
        |problem| problem.row_stride = 21,
        |problem| problem.column_stride = 5,
        |problem| problem.batch_strides = [0, 300, 50],
    ];
    for change in changes {
        let mut problem = packing();
        change(&mut problem);
        assert!(!problem.vec4(), "{problem:?}");
    }
}

#[test]
fn cooperative_matrices_ask_for_what_they_need() {
    let target = Target { subgroup: Some((32, 64)), f16: true, cooperative_matrix: Some(16), ..Target::baseline() };
    let kernel = coop::kernel(&coop::Spec { form: Form::NT, edge: 16, accumulate: true }, &target);
    assert_eq!((kernel.workgroup, kernel.requires.cooperative_matrix), ([256, 1, 1], Some(16)));
}

#[test]
fn grids_cover_c_within_the_limits() {
    for target in targets() {
        for (batch, m, n) in [([1; 3], 1, 1), ([1; 3], 512, 512), ([3, 1, 70_000], 1, 1), ([1; 3], 10_000_000, 8)] {
            let problem = Problem::dense(Form::NN, batch, m, n, 3);
            let spec = Spec::fit(Form::NN, &problem);
            let launch = gemm::launch(&spec, &problem, &target);
            assert!(launch.groups.iter().all(|&groups| (1..=65_535).contains(&groups)), "{launch:?}");
            let [.., tile_rows, row_tiles, column_tiles, tiles, grid_x] = launch.params[..] else { unreachable!() };
            // Where C has few columns, the kernel computes its transpose.
            let m = launch.params[0];
            assert!(tile_rows * row_tiles >= m && tile_rows * (row_tiles - 1) < m);
            assert_eq!(tiles, batch.iter().product::<u32>() * row_tiles * column_tiles);
            assert!(grid_x == launch.groups[0] && launch.groups.iter().product::<u32>() >= tiles);
        }
    }
}

#[test]
fn the_device_class_decides_the_shape() {
    let [gpu, cpu, _, _, broad, wide] = &targets()[..] else { unreachable!() };
    assert_eq!(Shape::choose(gpu), Shape::Tile);
    assert_eq!(Shape::choose(cpu), Shape::Panel { lanes: 8, wide: false, steals: false });
    assert_eq!(Shape::choose(broad), Shape::Panel { lanes: 16, wide: false, steals: true });
    assert_eq!(Shape::choose(wide), Shape::Panel { lanes: 16, wide: true, steals: true });
}
