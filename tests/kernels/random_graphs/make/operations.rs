//! The operations that random graphs are made of.

use viral_compiler::Value;
use viral_compiler::types::DType;

use super::Maker;

/// Smallest distance of numbers that are compared.
const NEAR: f64 = 1e-3;

impl Maker {
    /// A random operation on values of the pool.
    pub(super) fn operation(&mut self) -> Value {
        match self.below(100) {
            0..18 => self.unary(),
            18..38 => self.binary(),
            38..44 => self.choice(),
            44..68 => self.view(),
            68..80 => self.reduction(),
            80..88 => self.product(),
            88..93 => self.rows(),
            93..95 => self.indices(),
            _ => self.composite(),
        }
    }

    fn unary(&mut self) -> Value {
        let x = self.any();
        // Away from poles and jumps of slope.
        let positive = |maker: &mut Self| {
            let square = maker.graph.mul(x, x);
            maker.graph.offset(square, 0.3)
        };
        match self.below(13) {
            0 => self.graph.neg(x),
            1 => {
                let small = self.graph.tanh(x);
                self.graph.exp(small)
            }
            2 => {
                let p = positive(self);
                self.graph.log(p)
            }
            3 => {
                let p = positive(self);
                self.graph.sqrt(p)
            }
            4 => {
                let p = positive(self);
                self.graph.recip(p)
            }
            5 => {
                let small = self.graph.sigmoid(x);
                self.graph.sin(small)
            }
            6 => {
                let small = self.graph.tanh(x);
                self.graph.cos(small)
            }
            7 => self.graph.erf(x),
            8 => self.graph.tanh(x),
            9 => self.graph.sigmoid(x),
            10 => self.graph.silu(x),
            11 => {
                let factor = [0.0, 1.0, -1.0, 0.5, 3.0][self.below(5)];
                self.graph.scale(x, factor)
            }
            _ => {
                let offset = [0.0, 1.0, -0.5][self.below(3)];
                self.graph.offset(x, offset)
            }
        }
    }

    fn binary(&mut self) -> Value {
        let x = self.any();
        let mut shape = self.graph.shape(x).to_vec();
        // Sometimes the other side is broadcast.
        if self.chance(40) {
            for extent in &mut shape {
                if self.random.below(2) == 0 {
                    *extent = 1;
                }
            }
            let skip = self.below(shape.len() + 1);
            shape.drain(..skip);
        }
        let y = self.of_shape(&shape);
        match self.below(5) {
            0 => self.graph.add(x, y),
            1 => self.graph.sub(x, y),
            2 => self.graph.mul(x, y),
            3 => {
                let square = self.graph.mul(y, y);
                let positive = self.graph.offset(square, 0.4);
                self.graph.div(x, positive)
            }
            _ => {
                let shape = self.graph.shape(x).to_vec();
                let y = self.graph.expand(y, &shape);
                if self.are_apart(x, y) { self.graph.maximum(x, y) } else { self.graph.sub(y, x) }
            }
        }
    }

    fn are_apart(&mut self, x: Value, y: Value) -> bool {
        self.evaluate();
        let (x, y) = (&self.results[x.index()].data, &self.results[y.index()].data);
        x.iter().zip(y).all(|(x, y)| (x - y).abs() > NEAR)
    }

    fn choice(&mut self) -> Value {
        let x = self.any();
        let shape = self.graph.shape(x).to_vec();
        let (y, z) = (self.of_shape(&shape), self.of_shape(&shape));
        let condition = if !shape.is_empty() && self.chance(50) {
            let axes = (self.below(shape.len()), self.below(shape.len()));
            let (i, j) = (self.graph.iota(&shape, axes.0), self.graph.iota(&shape, axes.1));
            if self.chance(50) { self.graph.less(i, j) } else { self.graph.equal(i, j) }
        } else if self.are_apart(x, y) {
            self.graph.less(x, y)
        } else {
            return self.graph.add(x, y);
        };
        match self.below(3) {
            0 => self.graph.cast(condition, DType::F32),
            1 => {
                // A condition that is seen through views.
                let rotated = self.graph.reshape(condition, &[shape.iter().product()]);
                let back = self.graph.reshape(rotated, &shape);
                self.graph.select(back, x, z)
            }
            _ => self.graph.select(condition, z, x),
        }
    }

    fn view(&mut self) -> Value {
        let x = self.any();
        let shape = self.graph.shape(x).to_vec();
        let len = shape.iter().product::<usize>();
        match self.below(9) {
            0 => {
                let target = self.factors(len);
                self.graph.reshape(x, &target)
            }
            1 | 2 if shape.len() >= 2 => {
                let order = self.order(shape.len());
                self.graph.permute(x, &order)
            }
            3 if !shape.is_empty() => {
                let axis = self.below(shape.len());
                let start = self.below(shape[axis]);
                let count = 1 + self.below(shape[axis] - start);
                self.graph.slice(x, axis, start, count)
            }
            4 if !shape.is_empty() => {
                let (axis, before, after) = (self.below(shape.len()), self.below(4), self.below(5));
                self.graph.pad(x, axis, before, after)
            }
            5 if shape.len() < 4 => {
                let mut wide = shape.clone();
                let (at, extent) = (self.below(shape.len() + 1), 1 + self.below(5));
                wide.insert(at, 1);
                let x = self.graph.reshape(x, &wide);
                wide[at] = extent;
                self.graph.expand(x, &wide)
            }
            6 if !shape.is_empty() => {
                let axis = self.below(shape.len());
                let parts: Vec<Value> = (0..2 + self.below(3)).map(|_| self.of_shape(&shape)).collect();
                self.graph.concat(&parts, axis)
            }
            7 => self.graph.tag(x, "block"),
            8 => {
                let constant = self.graph.constant(DType::F32, 0.75, &shape);
                let padded = if shape.is_empty() { constant } else { self.graph.pad(constant, 0, 1, 0) };
                let back = if shape.is_empty() { padded } else { self.graph.slice(padded, 0, 0, shape[0]) };
                self.graph.mul(x, back)
            }
            _ => {
                let flat = self.graph.reshape(x, &[len]);
                let target = self.factors(len);
                self.graph.reshape(flat, &target)
            }
        }
    }

    /// A shape with this many elements.
    fn factors(&mut self, mut len: usize) -> Vec<usize> {
        let mut shape = Vec::new();
        while shape.len() < 3 && len > 1 && self.chance(80) {
            let divisors: Vec<usize> = (1..=len).filter(|d| len.is_multiple_of(*d)).collect();
            let divisor = divisors[self.below(divisors.len())];
            shape.push(divisor);
            len /= divisor;
        }
        shape.push(len);
        shape
    }

    fn reduction(&mut self) -> Value {
        let x = self.any();
        let rank = self.graph.shape(x).len();
        let axes: Vec<usize> = match self.below(3) {
            0 => (rank.saturating_sub(1)..rank).collect(),
            _ => (0..rank).filter(|_| self.random.below(2) == 0).collect(),
        };
        if axes.is_empty() {
            return self.graph.sum_all(x);
        }
        match self.below(4) {
            0 => self.graph.reduce_max(x, &axes),
            1 => {
                // A softmax, or half of one.
                let largest = self.graph.reduce_max(x, &axes);
                let shifted = self.graph.sub(x, largest);
                let weights = self.graph.exp(shifted);
                let total = self.graph.sum(weights, &axes);
                self.graph.div(weights, total)
            }
            _ => {
                let count: usize = axes.iter().map(|&axis| self.graph.shape(x)[axis]).product();
                let sum = self.graph.sum(x, &axes);
                self.graph.scale(sum, 1.0 / (count as f64).sqrt())
            }
        }
    }

    fn product(&mut self) -> Value {
        let batch: Vec<usize> = (0..self.below(4)).map(|_| 1 + self.below(3)).collect();
        let [m, k, n] = [0; 3].map(|_| 1 + self.below(17));
        let with = |last: [usize; 2]| batch.iter().copied().chain(last).collect::<Vec<_>>();
        let scale = 1.0 / (k as f64).sqrt();
        let operand = |maker: &mut Self, rows: usize, columns: usize| {
            if maker.chance(40) {
                let x = maker.of_shape(&with([columns, rows]));
                maker.graph.transpose(x)
            } else {
                maker.of_shape(&with([rows, columns]))
            }
        };
        let (a, b) = (operand(self, m, k), operand(self, k, n));
        let product = self.graph.dot(a, b);
        self.graph.scale(product, scale)
    }

    fn rows(&mut self) -> Value {
        let (rows, count, width) = (1 + self.below(9), 1 + self.below(9), 1 + self.below(12));
        let unique = self.chance(50);
        let index = self.index(count, rows, unique);
        if self.chance(50) {
            let table = self.of_shape(&[rows, width]);
            self.graph.gather(table, index, unique)
        } else {
            let x = self.of_shape(&[count, width]);
            self.graph.scatter(x, index, rows, unique)
        }
    }

    fn indices(&mut self) -> Value {
        let shape = self.shape();
        if shape.is_empty() {
            return self.graph.constant(DType::F32, 0.25, &[]);
        }
        let axis = self.below(shape.len());
        let index = self.graph.iota(&shape, axis);
        if self.chance(50) {
            let key = self.graph.iota(&shape, shape.len() - 1);
            return self.graph.uniform(index, key);
        }
        let real = self.graph.cast(index, DType::F32);
        self.graph.scale(real, 0.01)
    }

    fn composite(&mut self) -> Value {
        match self.below(6) {
            0 => {
                let x = self.any();
                let (x, shape) = self.graph.flatten_rows(x);
                let width = shape.last().copied().unwrap_or(1);
                let weight = self.of_shape(&[width]);
                self.graph.rms_norm(x, weight, 0.1)
            }
            1 => {
                let x = self.any();
                let (x, shape) = self.graph.flatten_rows(x);
                let width = shape.last().copied().unwrap_or(1);
                let (weight, bias) = (self.of_shape(&[width]), self.of_shape(&[width]));
                self.graph.layer_norm(x, weight, bias, 0.1)
            }
            2 => {
                let (b, t, h, e) = (1 + self.below(2), 1 + self.below(5), 1 + self.below(3), 2 + 2 * self.below(3));
                let x = self.of_shape(&[b, t, h, e]);
                let (cos, sin) = (self.of_shape(&[t, e / 2]), self.of_shape(&[t, e / 2]));
                self.graph.rope(x, cos, sin)
            }
            3 => {
                let (b, g, t, e) = (1 + self.below(2), 1 + self.below(2), 1 + self.below(6), 1 + self.below(8));
                let h = g * (1 + self.below(2));
                let s = t + self.below(4);
                let q = self.of_shape(&[b, t, h, e]);
                let (k, v) = (self.of_shape(&[b, s, g, e]), self.of_shape(&[b, s, g, e]));
                let [q, k, v] = [q, k, v].map(|x| self.graph.tanh(x));
                let causal = self.chance(50);
                self.graph.attention(q, k, v, causal, 0.5)
            }
            4 => {
                let (m, k, n, r) = (1 + self.below(9), 1 + self.below(9), 1 + self.below(9), 1 + self.below(4));
                let (x, w) = (self.of_shape(&[m, k]), self.of_shape(&[n, k]));
                let (a, b) = (self.of_shape(&[r, k]), self.of_shape(&[n, r]));
                self.graph.lora_linear(x, x, w, a, b, 0.5)
            }
            _ => {
                let (n, classes) = (1 + self.below(7), 2 + self.below(20));
                let logits = self.of_shape(&[n, classes]);
                let targets = self.index(n, classes - 1, false);
                self.graph.cross_entropy(logits, targets)
            }
        }
    }
}
