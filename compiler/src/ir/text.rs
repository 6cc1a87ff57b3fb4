//! The text form: one line a value, printed and parsed.
//!
//! ```text
//! %0 = input{name="x", dtype=f32, shape=[2,3]}() : f32[2,3]  @x
//! %1 = exp(%0) : f32[2,3]  @layers.0
//! output y = %1
//! ```

use std::collections::HashMap;
use std::fmt;

use super::graph::{Graph, Value};
use crate::ops::Op;
use crate::ops::attr::split_top_level;
use crate::types::TensorType;

/// A line of text that is not a graph's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What does not fit.
    pub message: String,
}

/// The text form.
impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for value in self.values() {
            let node = self.node(value);
            let args: Vec<String> = node.args.iter().map(Value::to_string).collect();
            write!(f, "{value} = {}({}) : {}", node.op, args.join(", "), node.ty)?;
            match self.name(value) {
                Some(name) => writeln!(f, "  @{name}")?,
                None => writeln!(f)?,
            }
        }
        for (name, value) in self.outputs() {
            writeln!(f, "output {name} = {value}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Graph {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut graph = Graph::new();
        let mut values = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                parse_line(&mut graph, &mut values, line).map_err(|message| ParseError { line: index + 1, message })?;
            }
        }
        Ok(graph)
    }
}

fn parse_line<'t>(graph: &mut Graph, values: &mut HashMap<&'t str, Value>, line: &'t str) -> Result<(), String> {
    let (left, right) = line.split_once(" = ").ok_or("expected `%n = operation(...) : type` or `output name = %n`")?;
    let lookup = |values: &HashMap<&str, Value>, name: &str| {
        values.get(name).copied().ok_or_else(|| format!("`{name}` is not defined above"))
    };
    if let Some(name) = left.strip_prefix("output ") {
        let value = lookup(values, right.trim())?;
        graph.output(name.trim(), value);
        return Ok(());
    }
    let (right, scope) = match right.rsplit_once("  @") {
        Some((right, scope)) => (right, Some(scope.trim().to_owned())),
        None => (right, None),
    };
    let (call, ty) = right.rsplit_once(" : ").ok_or("expected ` : type` after the call")?;
    let ty: TensorType = ty.trim().parse()?;
    let open = matching_paren(call).ok_or("expected `operation(arguments)`")?;
    let args = split_top_level(&call[open + 1..call.len() - 1]);
    let args = args.into_iter().map(|name| lookup(values, name)).collect::<Result<Vec<_>, _>>()?;
    let (name, attrs) = match call[..open].split_once('{') {
        Some((name, attrs)) => (name, attrs.strip_suffix('}').ok_or("expected `}` after the attributes")?),
        None => (&call[..open], ""),
    };
    let attrs = split_top_level(attrs)
        .into_iter()
        .map(|pair| pair.split_once('=').ok_or_else(|| format!("`{pair}` is not `name=value`")))
        .collect::<Result<Vec<_>, _>>()?;
    let op = Op::parse(name.trim(), &attrs)?;
    let value = graph.named(scope, |graph| graph.push(op, &args));
    graph.check().map_err(|error| error.to_string())?;
    if graph.ty(value) != &ty {
        return Err(format!("the result is {}, not {ty}", graph.ty(value)));
    }
    values.insert(left.trim(), value);
    Ok(())
}

/// Position of the parenthesis that the final `)` closes.
fn matching_paren(call: &str) -> Option<usize> {
    call.strip_suffix(')')?;
    call.rfind('(')
}
