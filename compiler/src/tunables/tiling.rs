//! `tiling`: how an ordinary kernel cuts a product, and which sizes it takes for small.

use viral_shaders::gemm::{Shape, Skew};
use viral_shaders::{DeviceClass, Target};

use super::product::Product;
use super::{Question, Seen, Tunable, unknown_choice};
use crate::compile::Options;
use crate::lower::Tiled;

pub(super) struct Tiling;

/// What may be chosen on GPUs.
const TILES: [(&str, Skew); 2] = [("tiles of 128", Skew::None), ("tiles of 64", Skew::FewTiles)];

/// What may be chosen on software devices. A panel may be followed by the rows of a stripe.
const PANELS: [(&str, Skew); 5] = [
    ("panel", Skew::None),
    ("narrow panel", Skew::Narrow),
    ("short panel", Skew::ShortK),
    ("thin rows", Skew::FewRows),
    ("thin columns", Skew::FewColumns),
];

/// Between the name of a panel and the rows of its stripes.
const ROWS: &str = " of rows ";

/// Rows of stripes that are tried.
const STRIPES: [u32; 5] = [64, 128, 256, 576, 1152];

/// Makes a product what was measured to be fastest for its class.
pub(crate) fn decide(tiled: &mut Tiled, target: &Target) {
    if target.tuning.is_empty() {
        return;
    }
    let choice = target.tuning.get(Tiling.name(), &Product::of_kernel(tiled).to_string());
    if let Some((skew, stripe)) = choice.and_then(|choice| parse(choice, target)) {
        (tiled.spec.skew, tiled.problem.stripe) = (skew, stripe);
    }
}

impl Tunable for Tiling {
    fn name(&self) -> &'static str {
        "tiling"
    }

    fn check(&self, class: &str, choice: &str, target: &Target) -> Result<(), String> {
        Product::check_class(class)?;
        let known = names(target).iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        parse(choice, target).map(drop).ok_or_else(|| unknown_choice(choice, &known))
    }

    fn questions(&self, seen: &Seen, options: &Options) -> Vec<Question> {
        let products = seen.products.iter().map(|tiled| (tiled, Product::of_kernel(tiled)));
        let question = |(tiled, product): (&Tiled, Product)| {
            let options = product.options(options);
            let target = &options.target;
            let mut ruled = tiled.clone();
            ruled.spec.skew = Skew::of(product.form, &tiled.problem);
            let rule = names(target).into_iter().find(|(_, skew)| is_same(*skew, ruled.spec.skew, target))?.0;
            let others = candidates(&ruled, rule, target).into_iter().filter(|choice| choice != rule);
            Some(Question {
                tunable: self.name(),
                class: product.to_string(),
                rule: rule.to_owned(),
                others: others.collect(),
                flops: product.flops(),
                graph: product.graph(),
                // It is an ordinary product by decisions that were made before this one.
                options: Options { cooperative: None, ..options },
            })
        };
        products.filter(|(_, product)| product.is_like_dense()).filter_map(question).collect()
    }
}

fn names(target: &Target) -> Vec<(&'static str, Skew)> {
    match target.class {
        DeviceClass::Gpu => TILES.to_vec(),
        DeviceClass::Cpu => PANELS.to_vec(),
    }
}

/// Whether two skews are one kernel on a device.
fn is_same(a: Skew, b: Skew, target: &Target) -> bool {
    match target.class {
        // Whatever is small: the smaller tiles.
        DeviceClass::Gpu => (a == Skew::None) == (b == Skew::None),
        DeviceClass::Cpu => a == b || [a, b].iter().all(|skew| matches!(skew, Skew::None | Skew::FewTiles)),
    }
}

fn is_panel(skew: Skew) -> bool {
    !matches!(skew, Skew::FewRows | Skew::FewColumns)
}

/// A choice from its text.
fn parse(choice: &str, target: &Target) -> Option<(Skew, u32)> {
    let (name, stripe) = match choice.split_once(ROWS) {
        Some((name, rows)) => (name, rows.parse().ok().filter(|rows| *rows > 0)?),
        None => (choice, 0),
    };
    let (_, skew) = names(target).into_iter().find(|(known, _)| *known == name)?;
    let takes_stripe = target.class == DeviceClass::Cpu && is_panel(skew);
    (stripe == 0 || takes_stripe).then_some((skew, stripe))
}

/// What is worth a try.
fn candidates(Tiled { spec, problem }: &Tiled, rule: &str, target: &Target) -> Vec<String> {
    let names = names(target);
    if target.class == DeviceClass::Gpu {
        return names.into_iter().map(|(name, _)| name.to_owned()).collect();
    }
    let is_sensible = |skew: Skew| match skew {
        Skew::None | Skew::FewTiles => true,
        Skew::Narrow => problem.n <= 256,
        Skew::ShortK => problem.k <= 128,
        Skew::FewRows => problem.m <= 64,
        Skew::FewColumns => problem.n <= 64,
    };
    let mut choices: Vec<String> =
        names.iter().filter(|(_, skew)| is_sensible(*skew)).map(|(name, _)| (*name).to_owned()).collect();
    if is_panel(spec.skew) {
        let [rows, _] = Shape::panel(target).tile(spec, problem);
        let others = STRIPES.iter().filter(|&&stripe| stripe != rows && stripe < problem.m);
        choices.extend(others.map(|stripe| format!("{rule}{ROWS}{stripe}")));
        // All rows in one.
        choices.extend((rows < problem.m).then(|| format!("{rule}{ROWS}{}", problem.m)));
    }
    choices
}
