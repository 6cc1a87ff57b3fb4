//! Checks the IR's invariants once, so that passes may assume them.

use std::collections::HashSet;

use super::graph::{Graph, TypeError, Value};
use crate::types::TensorType;

/// An invariant of the IR does not hold: a bug in the pass that ran last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Building the graph failed.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// An argument comes after its user.
    #[error("{value} uses {arg}, which is not above it")]
    Order {
        /// The user.
        value: Value,
        /// The argument.
        arg: Value,
    },
    /// A stored type differs from what the operation's rule gives.
    #[error("{value} is declared {declared}, its operation gives {inferred}")]
    Mismatch {
        /// The value.
        value: Value,
        /// Type in the node.
        declared: TensorType,
        /// What the rule says.
        inferred: String,
    },
    /// Two leaves or two outputs have one name.
    #[error("the name `{0}` is used twice")]
    Name(String),
}

impl Graph {
    /// Checks every invariant of the IR.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.check()?;
        for value in self.values() {
            let node = self.node(value);
            if let Some(&arg) = node.args.iter().find(|arg| **arg >= value) {
                return Err(VerifyError::Order { value, arg });
            }
            let args: Vec<&TensorType> = node.args.iter().map(|&a| self.ty(a)).collect();
            let inferred = node.op.infer(&args);
            if inferred.as_ref() != Ok(&node.ty) {
                let inferred = inferred.map_or_else(|message| message, |ty| ty.to_string());
                return Err(VerifyError::Mismatch { value, declared: node.ty.clone(), inferred });
            }
        }
        let leaves = self.leaves().map(|leaf| leaf.name);
        unique(leaves)?;
        unique(self.outputs().iter().map(|(name, _)| name.as_str()))
    }
}

fn unique<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), VerifyError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(VerifyError::Name(name.to_owned()));
        }
    }
    Ok(())
}
