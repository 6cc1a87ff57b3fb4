//! Attention and its gradients: one launch for all results that somebody reads.

use viral_shaders::Target;
use viral_shaders::attention::{self, Op as Kernels, Problem, Rows};

use super::super::Step;
use super::super::body::Obstacle;
use super::Context;
use crate::ir::Value;
use crate::ops::Op;
use crate::ops::attention_grad::Operand;

impl Context<'_> {
    /// Attention, its log-sum-exp, or both.
    pub(super) fn attention(
        &self,
        stored: &[Value],
        causal: bool,
        scale: f64,
        target: &Target,
    ) -> Result<Step, Obstacle> {
        let is_out = |value: &&Value| matches!(self.graph.node(**value).op, Op::Attention(_));
        let out = stored.iter().find(is_out).copied();
        let lse = stored.iter().find(|value| !is_out(value)).copied();
        let args = &self.graph.node(out.unwrap_or(self.value)).args;
        let (q_root, q) = self.heads(args[0])?;
        let (k_root, k) = self.heads(args[1])?;
        let mut reads = vec![q_root, k_root];
        let mut v = Rows::default();
        if out.is_some() {
            let (root, rows) = self.heads(args[2])?;
            reads.push(root);
            v = rows;
        }
        let problem = Problem { q, k, v, ..self.problem(args[0], args[1], causal, scale) };
        let op = Kernels::Forward { out: out.is_some(), lse: lse.is_some() };
        let products = 1 + u64::from(out.is_some());
        let results: Vec<Value> = out.into_iter().chain(lse).collect();
        Ok(self.attention_step(op, &problem, &reads, &results, products, target))
    }

    /// The gradient of q, or those of k and v.
    pub(super) fn attention_grad(
        &self,
        stored: &[Value],
        causal: bool,
        scale: f64,
        target: &Target,
    ) -> Result<Step, Obstacle> {
        let result = |wrt: Operand| {
            let is_it = |value: &&Value| matches!(&self.graph.node(**value).op, Op::AttentionGrad(op) if op.wrt == wrt);
            stored.iter().find(is_it).copied()
        };
        let [dq, dk, dv] = [Operand::Query, Operand::Key, Operand::Value].map(result);
        let args = &self.graph.node(self.value).args;
        let (q_root, q) = self.heads(args[0])?;
        let (k_root, k) = self.heads(args[1])?;
        let (v_root, v) = self.heads(args[2])?;
        let (lse, delta) = (self.dense(args[3])?, self.dense(args[4])?);
        let (dy_root, dy) = self.heads(args[5])?;
        let problem = Problem { q, k, v, dy, ..self.problem(args[0], args[1], causal, scale) };
        let (op, products) = match dq {
            Some(_) => (Kernels::GradQuery, 3),
            None => {
                let (dk, dv) = (dk.is_some(), dv.is_some());
                (Kernels::GradKey { dk, dv }, 1 + 2 * u64::from(dk) + u64::from(dv))
            }
        };
        let reads = [q_root, k_root, v_root, lse, delta, dy_root];
        let results: Vec<Value> = dq.into_iter().chain(dk).chain(dv).collect();
        Ok(self.attention_step(op, &problem, &reads, &results, products, target))
    }

    fn problem(&self, q: Value, k: Value, causal: bool, scale: f64) -> Problem {
        let (q, k) = (self.graph.shape(q), self.graph.shape(k));
        let [queries, keys] = [q[1], k[1]].map(|rows| rows as u32);
        Problem {
            batch: q[0] as u32,
            queries,
            keys,
            heads: q[2] as u32,
            groups: k[2] as u32,
            ahead: if causal { keys - queries } else { keys },
            scale: scale as f32,
            q: Rows::default(),
            k: Rows::default(),
            v: Rows::default(),
            dy: Rows::default(),
        }
    }

    /// An `f32` operand (B, rows, heads, E) with contiguous heads; every distance is a multiple of four floats.
    pub(super) fn heads(&self, value: Value) -> Result<(Value, Rows), Obstacle> {
        let (root, at) = self.strided(value, self.graph.shape(value))?;
        let distances = [at.offset, at.terms[0], at.terms[1], at.terms[2]];
        let is_aligned = distances.iter().all(|distance| *distance >= 0 && distance % 4 == 0);
        if at.terms[3] != 1 || !is_aligned || self.graph.ty(root).dtype.is_storage() {
            return Err(Obstacle::NeedsMemory(value));
        }
        let [offset, batch, row, head] = distances.map(|distance| distance as u32);
        Ok((root, Rows { offset, batch, row, head }))
    }

    /// `products` is how many products of E numbers a score takes part in.
    fn attention_step(
        &self,
        op: Kernels,
        problem: &Problem,
        reads: &[Value],
        results: &[Value],
        products: u64,
        target: &Target,
    ) -> Step {
        let width = self.graph.shape(self.graph.node(self.value).args[0])[3];
        let (queries, keys) = (u64::from(problem.queries), u64::from(problem.keys));
        let unseen = if problem.ahead < problem.keys { queries * queries / 2 } else { 0 };
        let scores = queries * keys - unseen;
        let rows = u64::from(problem.batch) * u64::from(problem.heads);
        let flops = 2 * products * rows * scores * width as u64;
        let kernel = attention::kernel(op, width as u32, target);
        let launch = attention::launch(op, problem, target);
        let touched = || reads.iter().chain(results).copied();
        Step {
            bindings: touched().map(|value| self.memory.of(value)).collect(),
            traffic: touched().map(|value| self.graph.ty(value).bytes()).sum(),
            writes: results.to_vec(),
            ..self.step(kernel, launch, reads.to_vec(), false, flops)
        }
    }
}
