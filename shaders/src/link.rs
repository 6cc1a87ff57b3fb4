//! Specialises plain WGSL by joining text: `enable` lines, a header of constants and aliases, library fragments, a body.
//!
//! A body declares the entry point `main` and calls hooks (`load_a`, `load_b`, `epilogue`, ..): ordinary functions that
//! one fragment of the library or another defines. WGSL lets declarations come in any order, so joining is all there is
//! to linking, but for lines of straight-line code that stand several times, and the text that is dumped is the text that runs.

use std::fmt::{self, Write as _};

/// A compile-time constant of the header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Const {
    /// `const NAME: u32 = 1u;`
    U32(u32),
    /// `const NAME: bool = true;`
    Bool(bool),
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Const::U32(value) => write!(f, "u32 = {value}u"),
            Const::Bool(value) => write!(f, "bool = {value}"),
        }
    }
}

/// Collects the pieces of one module; [`Linker::link`] joins them.
#[derive(Clone, Debug, Default)]
pub struct Linker {
    enables: String,
    header: String,
    parts: String,
}

impl Linker {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `enable extension;`. Bodies and fragments have no such lines, because implementations differ in which
    /// extensions they want named (naga rejects `subgroups`, others demand it).
    pub fn enable(mut self, extension: &str) -> Self {
        let _ = writeln!(self.enables, "enable {extension};");
        self
    }

    /// Adds `const name: type = value;` to the header.
    pub fn constant(mut self, name: &str, value: Const) -> Self {
        let _ = writeln!(self.header, "const {name}: {value};");
        self
    }

    /// Adds `alias name = type;` to the header.
    pub fn alias(mut self, name: &str, ty: &str) -> Self {
        let _ = writeln!(self.header, "alias {name} = {ty};");
        self
    }

    /// Adds a library fragment or a body.
    pub fn part(mut self, text: &str) -> Self {
        self.parts.push('\n');
        self.parts.push_str(text);
        self
    }

    /// Adds a fragment or a body with lines that stand several times: for a counter `("$i", 3)` every line with `$i` stands
    /// three times, with 0, 1 and 2 in its place; comments stay as they are. Drivers take as long for code that a constant
    /// switches off as for code that runs, so that it had better not be there.
    pub fn unrolled(mut self, text: &str, counters: &[(&str, u32)]) -> Self {
        self.parts.push('\n');
        for line in text.split_inclusive('\n') {
            let is_code = !line.trim_start().starts_with("//");
            match counters.iter().find(|(counter, _)| is_code && line.contains(counter)) {
                Some((counter, count)) => {
                    self.parts.extend((0..*count).map(|i| line.replace(counter, &i.to_string())));
                }
                None => self.parts.push_str(line),
            }
        }
        self
    }

    /// The module.
    pub fn link(self) -> String {
        [self.enables, self.header, self.parts].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_counter_stand_as_often_as_it_counts() {
        let text = "// $i\nsum += 0u;\nsum += a$i * b[$i];\nsum += c$j;\n";
        let unrolled = Linker::new().unrolled(text, &[("$i", 2), ("$j", 0)]).link();
        assert_eq!(unrolled, "\n// $i\nsum += 0u;\nsum += a0 * b[0];\nsum += a1 * b[1];\n");
    }

    #[test]
    fn pieces_come_in_the_order_that_wgsl_demands() {
        let text = Linker::new()
            .part("fn f() {}\n")
            .constant("LANES", Const::U32(16))
            .enable("f16")
            .alias("Cell", "vec4<f32>")
            .constant("ON", Const::Bool(true))
            .part("fn main() {}\n")
            .link();
        let expected = "enable f16;\nconst LANES: u32 = 16u;\nalias Cell = vec4<f32>;\nconst ON: bool = true;\n\n\
                        fn f() {}\n\nfn main() {}\n";
        assert_eq!(text, expected);
    }
}
