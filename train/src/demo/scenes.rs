//! The demo's pictures and what is said about them.

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::random::Random;

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [205, 40, 40]),
    ("green", [40, 150, 60]),
    ("blue", [45, 80, 200]),
    ("yellow", [235, 200, 40]),
    ("purple", [130, 60, 160]),
    ("black", [25, 25, 25]),
];
const BACKGROUNDS: [[u8; 3]; 4] = [[250, 250, 245], [225, 235, 240], [240, 230, 215], [215, 225, 205]];
/// The mean of the backgrounds.
pub(super) const MEAN_BACKGROUND: [f64; 3] = [232.5, 235.0, 226.25];
/// Width and height; most are not square, so padding has something to do.
const CANVASES: [(u32, u32); 3] = [(96, 72), (72, 96), (84, 84)];
const NUMBERS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// What a dataset is made of.
#[derive(Debug)]
pub(super) struct SceneSet {
    /// Pictures, each with a record of its own.
    pub(super) pictures: usize,
    /// Records without a picture; `pictures` is a multiple of it.
    pub(super) texts: usize,
    /// Questions about a picture, at most.
    pub(super) rounds: usize,
    /// Pixels of a picture's sides, as a multiple of [`CANVASES`].
    pub(super) scale: u32,
}

/// The demo's dataset.
pub(super) struct Scenes {
    /// File name and picture.
    pub(super) pictures: Vec<(String, RgbImage)>,
    /// Records in LLaVA's format.
    pub(super) records: Vec<Value>,
}

impl Scenes {
    /// Every question and answer, one a line.
    pub(super) fn text(&self) -> String {
        let turns = self.records.iter().filter_map(|record| record["conversations"].as_array()).flatten();
        turns.filter_map(|turn| turn["value"].as_str()).flat_map(|text| [text, "\n"]).collect()
    }
}

/// Draws the pictures and writes the conversations. Records without a picture are spread evenly among the others.
pub(super) fn generate(set: &SceneSet, seed: u64) -> Scenes {
    let mut random = Random::new(seed, "scenes");
    let mut scenes = Scenes { pictures: Vec::new(), records: Vec::new() };
    let mut texts = 0;
    for index in 0..set.pictures {
        let scene = Scene::random(&mut random, set.scale);
        let name = format!("{index:03}.png");
        let id = format!("picture-{index:03}");
        scenes.pictures.push((name.clone(), scene.draw(&mut random)));
        scenes.records.push(scene.record(&id, &name, set.rounds, &mut random));
        if index * set.texts / set.pictures >= texts && texts < set.texts {
            let id = format!("text-{texts:03}");
            texts += 1;
            scenes.records.push(json!({"id": id, "conversations": turns(text_only(&mut random), None)}));
        }
    }
    scenes
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Circle,
    Square,
    Triangle,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
        }
    }

    /// Whether the shape of half-width `r` around the origin covers a pixel.
    fn covers(self, x: i64, y: i64, r: i64) -> bool {
        let inside = x.abs() <= r && y.abs() <= r;
        match self {
            Self::Circle => x * x + y * y <= r * r,
            Self::Square => inside,
            // The top is at -r, the base at r.
            Self::Triangle => inside && 2 * x.abs() <= y + r,
        }
    }
}

/// Where a lone shape stands.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

impl Side {
    fn phrase(self) -> &'static str {
        match self {
            Self::Left => "on the left",
            Self::Right => "on the right",
            Self::Top => "at the top",
            Self::Bottom => "at the bottom",
        }
    }

    /// Centre as a share of the canvas, in eighths.
    fn centre(self) -> (i64, i64) {
        match self {
            Self::Left => (2, 4),
            Self::Right => (6, 4),
            Self::Top => (4, 2),
            Self::Bottom => (4, 6),
        }
    }
}

/// One picture: some equal shapes on a plain background.
struct Scene {
    shape: Shape,
    colour: (&'static str, [u8; 3]),
    count: usize,
    side: Side,
    background: [u8; 3],
    canvas: (u32, u32),
}

impl Scene {
    fn random(random: &mut Random, scale: u32) -> Self {
        Self {
            shape: random.pick([Shape::Circle, Shape::Square, Shape::Triangle]),
            colour: random.pick(COLOURS),
            // Half of the pictures show a lone shape at one side.
            count: random.pick([1, 1, 1, 2, 3, 4]),
            side: random.pick([Side::Left, Side::Right, Side::Top, Side::Bottom]),
            background: random.pick(BACKGROUNDS),
            canvas: {
                let (width, height) = random.pick(CANVASES);
                (width * scale, height * scale)
            },
        }
    }

    fn draw(&self, random: &mut Random) -> RgbImage {
        let (width, height) = self.canvas;
        let (w, h) = (i64::from(width), i64::from(height));
        let short = w.min(h);
        let (radius, centres) = match self.count {
            1 => (short / 5, vec![self.side.centre()]),
            count => (short / 7, [(2, 2), (6, 6), (6, 2), (2, 6)].into_iter().take(count).collect()),
        };
        let mut picture = RgbImage::from_pixel(width, height, Rgb(self.background));
        for (x, y) in centres {
            // A few pixels off the grid, so that no two pictures are alike.
            let mut jitter = || random.below(7) as i64 - 3;
            let (cx, cy) = (x * w / 8 + jitter(), y * h / 8 + jitter());
            for (px, py, pixel) in picture.enumerate_pixels_mut() {
                if self.shape.covers(i64::from(px) - cx, i64::from(py) - cy, radius) {
                    *pixel = Rgb(self.colour.1);
                }
            }
        }
        picture
    }

    fn record(&self, id: &str, file: &str, most_rounds: usize, random: &mut Random) -> Value {
        let (shape, colour) = (self.shape.name(), self.colour.0);
        let mut rounds = if self.count == 1 {
            vec![
                (format!("What colour is the {shape}?"), format!("The {shape} is {colour}.")),
                (format!("Where is the {shape}?"), format!("The {shape} is {}.", self.side.phrase())),
                ("What is in the picture?".into(), format!("There is one {colour} {shape} {}.", self.side.phrase())),
            ]
        } else {
            let count = NUMBERS[self.count];
            vec![
                (format!("What colour are the {shape}s?"), format!("The {shape}s are {colour}.")),
                (format!("How many {shape}s are there?"), format!("There are {count} {shape}s.")),
                ("What is in the picture?".into(), format!("There are {count} {colour} {shape}s.")),
            ]
        };
        let opening = random.below(rounds.len());
        rounds.swap(0, opening);
        rounds.truncate(1 + random.below(most_rounds));
        json!({"id": id, "image": file, "conversations": turns(rounds, Some(random.below(4) == 0))})
    }
}

/// A sum, or something about shapes.
fn text_only(random: &mut Random) -> Vec<(String, String)> {
    let (a, b) = (1 + random.below(4), 1 + random.below(5));
    let (first, second, sum) = (NUMBERS[a], NUMBERS[b], NUMBERS[a + b]);
    let shape = random.pick([("triangle", "three"), ("square", "four")]);
    vec![
        (format!("What is {first} plus {second}?"), format!("{} plus {second} is {sum}.", capital(first))),
        (format!("How many sides has a {}?", shape.0), format!("A {} has {} sides.", shape.0, shape.1)),
    ]
    .split_off(random.below(2))
}

/// Rounds as turns. The picture's tag stands before the first question, or behind it if `picture` says so.
fn turns(rounds: Vec<(String, String)>, picture: Option<bool>) -> Value {
    let mut turns = Vec::new();
    for (index, (question, answer)) in rounds.into_iter().enumerate() {
        let question = match picture {
            Some(false) if index == 0 => format!("<image>\n{question}"),
            Some(true) if index == 0 => format!("{question}\n<image>"),
            _ => question,
        };
        turns.push(json!({"from": "human", "value": question}));
        turns.push(json!({"from": "gpt", "value": answer}));
    }
    Value::Array(turns)
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Record;

    const SET: SceneSet = SceneSet { pictures: 60, texts: 15, rounds: 2, scale: 1 };

    #[test]
    fn records_keep_the_rules() {
        let scenes = generate(&SET, 7);
        assert_eq!((scenes.pictures.len(), scenes.records.len()), (SET.pictures, SET.pictures + SET.texts));
        for value in &scenes.records {
            match Record::parse(value.to_string().as_bytes()) {
                Ok(record) => assert_eq!(record.image.is_some(), record.modality_length > 0),
                Err(fault) => panic!("{value}: {fault:?}"),
            }
        }
        let texts = scenes.records.iter().filter(|record| record.get("image").is_none()).count();
        assert_eq!(texts, SET.texts);
    }

    #[test]
    fn pictures_show_the_colour_they_are_said_to_have() {
        let mut random = Random::new(3, "test");
        for _ in 0..40 {
            let scene = Scene::random(&mut random, 1);
            let picture = scene.draw(&mut random);
            let painted = picture.pixels().filter(|pixel| pixel.0 == scene.colour.1).count();
            let area = picture.pixels().len();
            assert!(painted * 40 > area && painted * 2 < area, "{painted} of {area}");
        }
    }

    #[test]
    fn the_mean_background_is_the_mean() {
        for channel in 0..3 {
            let sum: f64 = BACKGROUNDS.iter().map(|colour| f64::from(colour[channel])).sum();
            assert_eq!(sum / BACKGROUNDS.len() as f64, MEAN_BACKGROUND[channel]);
        }
    }

    #[test]
    fn scenes_repeat() {
        let (a, b) = (generate(&SET, 1), generate(&SET, 1));
        assert_eq!(a.records, b.records);
        assert!(a.pictures.iter().zip(&b.pictures).all(|(a, b)| a.1 == b.1));
        assert_ne!(a.records, generate(&SET, 2).records);
    }
}
