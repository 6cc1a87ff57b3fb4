//! Decisions that a measurement on the device may take instead of a rule.
//!
//! Which kernel is fastest differs from device to device. Rules decide, out of shapes and [`Target`] alone; where
//! [`Target::tuning`] knows better about a class of problems, it is asked first. This module lists what can be decided so
//! ([`LIST`]), says which such questions a graph raises ([`questions`]), and makes the plans that a measurement compares
//! ([`Question::plans`]). It measures nothing itself.
//!
//! A tunable is one file and one line of the list: it turns a problem into the text of its class, reads and writes choices as
//! text, and has a function that the compiler calls where it decides. A choice that cannot be read, or that does not fit the
//! problem, leaves the decision to the rule.

mod attention;
mod matrices;
mod parts;
mod product;
mod tiling;

use std::collections::BTreeMap;

use viral_shaders::{Kernel, Target, Tuning, table};

use crate::compile::{CompileError, Options, lowered};
use crate::ir::{Graph, Node};
use crate::lower::Tiled;
use crate::passes::Pass;
use crate::plan::Plan;

pub(crate) use attention::is_fused;
pub(crate) use matrices::{Way, way};
pub(crate) use parts::parts;
pub(crate) use tiling::decide as decide_tiling;

/// Every decision that can be measured, in the order in which they should be: what comes later is made of what comes before.
const LIST: &[&dyn Tunable] = &[&tiling::Tiling, &parts::Parts, &matrices::Matrices, &attention::Attention];

/// A decision that can be measured.
trait Tunable {
    /// Its name in records.
    fn name(&self) -> &'static str;
    /// Whether a record's class and choice mean anything on a device; if not, why.
    fn check(&self, class: &str, choice: &str, target: &Target) -> Result<(), String>;
    /// The problems that a graph poses.
    fn questions(&self, seen: &Seen, options: &Options) -> Vec<Question>;
}

/// A problem whose fastest solution can be found by measuring it alone.
#[derive(Clone, Debug)]
pub struct Question {
    /// The decision.
    pub tunable: &'static str,
    /// The class of problems that the answer is for.
    pub class: String,
    /// What the rule chooses.
    pub rule: String,
    /// What else could be chosen.
    pub others: Vec<String>,
    /// Floating-point operations of all problems of the class in the graph.
    pub flops: u64,
    /// The largest of them alone.
    graph: Graph,
    options: Options,
}

/// A graph on its way through the compiler.
struct Seen {
    stages: BTreeMap<&'static str, Graph>,
    products: Vec<Tiled>,
}

impl Seen {
    /// The graph that a pass gets.
    fn before(&self, pass: Pass) -> &Graph {
        let earlier = Pass::ALL.iter().take_while(|&&other| other != pass).last();
        &self.stages[earlier.map_or("remat", |pass| pass.name())]
    }

    /// The nodes of that graph that something is computed from.
    fn nodes_before(&self, pass: Pass) -> impl Iterator<Item = &Node> {
        let graph = self.before(pass);
        let live = graph.live();
        graph.values().filter(move |value| live[value.index()]).map(|value| graph.node(value))
    }
}

/// What a graph asks, every class of problems once; the largest amount of work first among those of one decision, and these in
/// the order in which they should be answered.
///
/// # Errors
/// A graph that cannot be compiled.
pub fn questions(graph: &Graph, options: &Options) -> Result<Vec<Question>, CompileError> {
    let mut stages = BTreeMap::new();
    let (_, _, steps) = lowered(graph, options, &mut |stage, graph| {
        stages.insert(stage, graph.clone());
    })?;
    let seen = Seen { stages, products: steps.into_iter().filter_map(|step| step.product).collect() };
    let asked = LIST.iter().flat_map(|tunable| tunable.questions(&seen, options));
    Ok(merged(asked.filter(|question| !question.others.is_empty())))
}

/// One question of each class, about its largest problem, with the work of all.
pub fn merged(questions: impl IntoIterator<Item = Question>) -> Vec<Question> {
    let position = |question: &Question| LIST.iter().position(|tunable| tunable.name() == question.tunable);
    let mut classes: BTreeMap<_, (u64, Question)> = BTreeMap::new();
    for question in questions {
        let key = (position(&question), question.class.clone());
        match classes.get_mut(&key) {
            None => drop(classes.insert(key, (question.flops, question))),
            Some((largest, known)) => {
                let flops = known.flops + question.flops;
                if question.flops > *largest {
                    (*largest, *known) = (question.flops, question);
                }
                known.flops = flops;
            }
        }
    }
    let mut questions: Vec<Question> = classes.into_values().map(|(_, question)| question).collect();
    questions.sort_by_key(|question| (position(question), std::cmp::Reverse(question.flops)));
    questions
}

impl Question {
    /// The plan of the problem alone for each choice, the rule's first. Those that come out as another one are left out.
    ///
    /// # Errors
    /// A problem that cannot be compiled alone.
    pub fn plans(&self, tuning: &Tuning) -> Result<Vec<(&str, Plan)>, CompileError> {
        let mut plans: Vec<(&str, Plan)> = Vec::new();
        for choice in [&self.rule].into_iter().chain(&self.others) {
            let plan = self.plan(choice, tuning)?;
            if !plans.iter().any(|(_, known)| *known == plan) {
                plans.push((choice, plan));
            }
        }
        Ok(plans)
    }

    /// The plan of the problem alone for one choice, under what else is known.
    ///
    /// # Errors
    /// As [`Question::plans`].
    pub fn plan(&self, choice: &str, tuning: &Tuning) -> Result<Plan, CompileError> {
        crate::compile(&self.graph, &self.options_for(choice, tuning))
    }

    /// The problem alone.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The options that [`Question::plan`] compiles it with.
    pub fn options_for(&self, choice: &str, tuning: &Tuning) -> Options {
        let mut options = self.options.clone();
        options.target.tuning = tuning.clone();
        options.target.tuning.set(self.tunable, &self.class, choice);
        options
    }
}

/// Whether an entry of a record names a decision, a class of problems and a choice that exist on a device; if not, why.
///
/// # Errors
/// What is wrong, in words that complete "the entry is ignored: ".
pub fn check([tunable, class, choice]: [&str; 3], target: &Target) -> Result<(), String> {
    let names = || LIST.iter().map(|tunable| format!("`{}`", tunable.name())).collect::<Vec<_>>().join(", ");
    let known = LIST.iter().find(|known| known.name() == tunable);
    known.ok_or_else(|| format!("there is no tunable `{tunable}`, only {}", names()))?.check(class, choice, target)
}

/// A number that tells the kernels of this program on a device from those of another version: what was measured about the
/// ones says nothing about the others.
pub fn version(target: &Target) -> u64 {
    // FNV-1a, 64 bits.
    let hash = |hash: u64, text: &str| {
        text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    table::variants(target).fold(0xcbf2_9ce4_8422_2325, |sum, Kernel { name, wgsl, .. }| hash(hash(sum, &name), &wgsl))
}

/// An extent's class: four to each doubling, so that none holds numbers more than a quarter apart, and each ends where the
/// bounds of rules lie, at powers of two.
fn extent_class(extent: usize) -> usize {
    extent.next_multiple_of((extent.next_power_of_two() / 8).max(1))
}

/// Why a choice cannot be taken.
fn unknown_choice(choice: &str, known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|choice| format!("`{choice}`")).collect();
    format!("`{choice}` is no choice on this device; there are {}", known.join(", "))
}

#[cfg(test)]
mod tests;
