use viral_shaders::DeviceClass;

use super::*;
use crate::grad::gradients;
use crate::plan::Command;
use crate::types::DType;

/// Products of every kind, attention, and gradients of them.
fn layer(rows: usize, width: usize, vocabulary: usize) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[rows, width]);
    let [w, table] = [("w", width), ("table", vocabulary)].map(|(name, rows)| g.weight(name, &[rows, width]));
    let (a, b) = (g.param("lora_A", &[16, width]), g.param("lora_B", &[width, 16]));
    let q = g.lora_linear(x, x, w, a, b, 2.0);
    let heads = g.reshape(q, &[1, rows, 2, width / 2]);
    let y = g.attention(heads, heads, heads, true, 0.5);
    let y = g.reshape(y, &[rows, width]);
    let y = g.slice(y, 0, 0, 32);
    let logits = g.linear(y, table, None);
    let loss = g.sum_all(logits);
    for (name, gradient) in ["a", "b"].into_iter().zip(gradients(&mut g, loss, &[a, b])) {
        g.output(name, gradient.unwrap());
    }
    g
}

fn targets() -> [(Target, Option<usize>); 3] {
    let cpu = Target { class: DeviceClass::Cpu, subgroup: Some((8, 8)), ..Target::baseline() };
    let matrices = Target { subgroup: Some((32, 32)), f16: true, cooperative_matrix: Some(16), ..Target::baseline() };
    [(Target::baseline(), None), (cpu, None), (matrices, Some(64))]
}

fn options((target, cooperative): (Target, Option<usize>), activations: DType) -> Options {
    Options { cooperative, activations, ..Options::new(target) }
}

#[test]
fn extents_of_a_class_are_near_and_bounded_by_powers_of_two() {
    for extent in 1..5000 {
        let class = extent_class(extent);
        assert!(extent <= class && 4 * class <= 5 * extent + 4 && extent_class(class) == class, "{extent}: {class}");
        assert!(class <= extent.next_power_of_two(), "{extent}: {class}");
    }
}

/// What a measurement alone decides must be what the whole plan would have: the rule's choice by name is no choice at all, and
/// the others change the problem.
#[test]
fn the_rules_choice_by_name_is_that_of_the_rule_and_others_are_not() {
    for target in targets() {
        for activations in [DType::F32, DType::BF16] {
            let options = options(target.clone(), activations);
            let questions = questions(&layer(1112, 128, 3200), &options).unwrap();
            let mut names: Vec<&str> = questions.iter().map(|question| question.tunable).collect();
            names.dedup();
            let expected: Vec<&str> = LIST.iter().map(|tunable| tunable.name()).collect();
            let all: Vec<&str> =
                expected.into_iter().filter(|name| options.cooperative.is_some() || *name != "matrices").collect();
            assert_eq!(names, all, "{target:?}");
            for question in &questions {
                let what = format!("{} {}", question.tunable, question.class);
                let none = Options { target: options.target.clone(), ..question.options.clone() };
                let ruled = crate::compile(&question.graph, &none).unwrap();
                let plans = question.plans(&Tuning::default()).unwrap();
                assert_eq!(plans[0], (question.rule.as_str(), ruled), "{what}");
                assert_eq!(plans.len(), 1 + question.others.len(), "{what}: {:?}", question.others);
                for choice in [&question.rule].into_iter().chain(&question.others) {
                    check([question.tunable, &question.class, choice], &options.target).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_record_decides_in_the_place_of_the_rule() {
    for target in targets() {
        let (graph, options) = (layer(1112, 128, 3200), options(target.clone(), DType::F32));
        let by_rule = crate::compile(&graph, &options).unwrap();
        for question in questions(&graph, &options).unwrap() {
            let other = question.others.last().unwrap();
            let mut tuned = options.clone();
            tuned.target.tuning.set(question.tunable, &question.class, other);
            let plan = crate::compile(&graph, &tuned).unwrap();
            assert_ne!(plan, by_rule, "{} {}: {other}", question.tunable, question.class);
            // The rule by its name is the rule; what cannot be read, or is about something else, decides nothing.
            for [tunable, class, choice] in [
                [question.tunable, &question.class, &question.rule],
                [question.tunable, &question.class, "no such choice"],
                [question.tunable, "no such class", other],
                ["no such tunable", &question.class, other],
            ] {
                let mut same = options.clone();
                same.target.tuning.set(tunable, class, choice);
                assert_eq!(crate::compile(&graph, &same).unwrap(), by_rule, "{tunable} {class} {choice}");
            }
        }
    }
}

#[test]
fn parts_are_as_many_as_fit_the_problem() {
    let launches = |k: usize, parts: &str| {
        let mut graph = Graph::new();
        let (a, b) = (graph.weight("a", &[32, k]), graph.weight("b", &[k, 16]));
        let c = graph.dot(a, b);
        graph.output("c", c);
        let mut options = options(targets()[1].clone(), DType::F32);
        options.target.tuning.set("parts", "nn 32x16x1280 f32 f32", parts);
        let plan = crate::compile(&graph, &options).unwrap();
        plan.commands.iter().filter(|command| matches!(command, Command::Dispatch(_))).count()
    };
    // 1112 = 8 · 139 = 2 · 556; parts are multiples of four.
    assert_eq!([launches(1280, "4"), launches(1112, "4"), launches(1112, "1"), launches(1100, "8")], [3, 3, 1, 3]);
    assert_eq!(launches(1099, "8"), 1, "1099 = 7 · 157");
}

#[test]
fn entries_that_mean_nothing_are_told() {
    let [(gpu, _), (cpu, _), (matrices, _)] = targets();
    let class = "nt 1280x128x128 f32 bf16 x8 unaligned";
    for (entry, target, told) in [
        (["tiling", class, "tiles of 64"], &gpu, ""),
        (["tiling", class, "panel of rows 256"], &cpu, ""),
        (["tiling", class, "panel of rows 256"], &gpu, "`panel of rows 256` is no choice"),
        (["tiling", class, "thin rows of rows 256"], &cpu, "no choice"),
        (["tiling", class, "panel of rows 0"], &cpu, "no choice"),
        (["tiling", "nt 1112x128x128 f32 f32", "panel"], &cpu, "no class of products"),
        (["tiling", "nx 1280x128x128 f32 f32", "panel"], &cpu, "no class of products"),
        (["tiling", "nt 1280x128 f32 f32", "panel"], &cpu, "no class of products"),
        (["parts", class, "8"], &gpu, ""),
        (["parts", class, "0"], &gpu, "no choice"),
        (["matrices", class, "matrices in parts 4"], &matrices, ""),
        (["matrices", class, "matrices in parts none"], &matrices, "no choice"),
        (["matrices", class, "ordinary"], &gpu, ""),
        (["attention", "forward 1x8/2 1024x1024 width 64 causal bf16 matrices", "products"], &cpu, ""),
        (["attention", "forward 1x8/2 1024x1024 width 64 casual f32", "products"], &cpu, "no class of attention"),
        (["attention", "forward 1x8/2 1024x1024 width 64 f32", "split"], &cpu, "no choice"),
        (["unrolling", class, "8"], &cpu, "no tunable `unrolling`, only `tiling`, `parts`"),
    ] {
        let found = check(entry, target).err().unwrap_or_default();
        assert!(found.contains(told) && found.is_empty() == told.is_empty(), "{entry:?}: {found:?}");
    }
}

#[test]
fn kernels_of_another_device_are_another_version() {
    let [(gpu, _), (cpu, _), _] = targets();
    assert_eq!(version(&gpu), version(&gpu));
    assert_ne!(version(&gpu), version(&cpu));
}
