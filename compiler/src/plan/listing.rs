//! A plan as text: what the dump shows and what file tests compare.
//!
//! ```text
//! memory: weights 24 B, state 0 B, ports 192 B, slots 32 B (at least 32 B)
//! buffers
//!   b0  32 B  slot
//!   b1  96 B  x
//! ports
//!   input x : f32[4,6] = b1
//! kernels
//!   k0  row_mul  workgroup [32,1,1], 3 bindings, 12 words
//! commands
//!   0  k0 row_mul(b1, b2, *b0)  [4,1,1]  144 flop, 216 B  @layers.0.norm
//! ```
//!
//! A star marks what a kernel may write. `b0[16..32]` are bytes of a buffer, `b0` alone is all of it.

use std::fmt;

use viral_shaders::Access;

use super::{Bind, BufferRole, Command, Dispatch, Plan, Port};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = &self.memory;
        writeln!(
            f,
            "memory: weights {} B, state {} B, ports {} B, slots {} B (at least {} B)",
            memory.weights, memory.state, memory.ports, memory.slots, memory.lower_bound
        )?;
        writeln!(f, "buffers")?;
        for (index, buffer) in self.buffers.iter().enumerate() {
            let role = match &buffer.role {
                BufferRole::Slot => "slot",
                BufferRole::External(name) => name,
            };
            writeln!(f, "  b{index}  {} B  {role}", buffer.bytes)?;
        }
        writeln!(f, "ports")?;
        for (kind, ports) in [("input", &self.inputs), ("state", &self.state), ("output", &self.outputs)] {
            for Port { name, ty, bind } in ports {
                writeln!(f, "  {kind} {name} : {ty} = {}", self.show_bind(bind))?;
            }
        }
        writeln!(f, "kernels")?;
        for (index, kernel) in self.kernels.iter().enumerate() {
            let (name, bindings, words) = (&kernel.name, kernel.bindings.len(), kernel.param_words);
            let [x, y, z] = kernel.workgroup;
            writeln!(f, "  k{index}  {name}  workgroup [{x},{y},{z}], {bindings} bindings, {words} words")?;
        }
        writeln!(f, "commands")?;
        for (index, command) in self.commands.iter().enumerate() {
            match command {
                Command::Clear(bind) => writeln!(f, "  {index}  clear {}", self.show_bind(bind))?,
                Command::Dispatch(dispatch) => writeln!(f, "  {index}  {}", self.show_dispatch(dispatch))?,
            }
        }
        Ok(())
    }
}

impl Plan {
    fn show_dispatch(&self, dispatch: &Dispatch) -> String {
        let kernel = self.kernels.get(dispatch.kernel.0 as usize);
        let access = kernel.map_or(&[][..], |kernel| &kernel.bindings);
        let star = |index: usize| if access.get(index) == Some(&Access::ReadWrite) { "*" } else { "" };
        let binds = dispatch.binds.iter().enumerate();
        let binds: Vec<String> = binds.map(|(i, bind)| format!("{}{}", star(i), self.show_bind(bind))).collect();
        let name = kernel.map_or("?", |kernel| &kernel.name);
        let [x, y, z] = dispatch.groups;
        format!(
            "k{} {name}({})  [{x},{y},{z}]  {} flop, {} B  @{}",
            dispatch.kernel.0,
            binds.join(", "),
            dispatch.flops,
            dispatch.traffic,
            dispatch.label
        )
    }

    fn show_bind(&self, bind: &Bind) -> String {
        let Bind { buffer, offset, bytes } = *bind;
        let whole = self.buffers.get(buffer.0 as usize).is_some_and(|b| offset == 0 && bytes == b.bytes);
        match whole {
            true => format!("b{}", buffer.0),
            false => format!("b{}[{offset}..{}]", buffer.0, offset + bytes),
        }
    }
}
