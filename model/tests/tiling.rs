//! LLaVA-NeXT's tiles and the order of their visual tokens against the library, on pictures out of their sizes.

#[path = "../../tests/support/counter.rs"]
mod counter;

use std::collections::HashMap;
use std::path::Path;

use counter::{content, probe, uniform};
use serde_json::{Value as Json, json};
use viral_compiler::Graph;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_model::config::{ImageProcessorConfig, LlavaConfig};
use viral_model::graph::llava::{self, Visual};
use viral_model::graph::{Trainable, projector, vision};
use viral_model::image::{Aspect, ImageProcessor, Picture, TiledToken, Tiling};

#[test]
fn tiles_and_packed_tokens_are_those_of_the_library() {
    let (expected, config) = (read("tiling.json"), config());
    let side = config.vision.image_size;
    let tiling = config.tiling.clone().unwrap();
    let processor = ImageProcessor::new(ImageProcessorConfig::clip(side), Aspect::Square, side).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let [width, height, tiles, tokens] =
            ["width", "height", "tiles", "tokens"].map(|key| case[key].as_u64().unwrap() as usize);
        let place = format!("{width} x {height}");
        let layout = tiling.layout(width, height).unwrap();
        assert_eq!(layout.tiles(), tiles, "{place}");
        let pixels = processor.tiled_pixels(&picture(width, height), &tiling, layout);
        let pixels: Vec<f64> = pixels.into_iter().map(f64::from).collect();
        compare(&place, "pixels", &pixels, &case["pixels"], 1e-8);

        let order = layout.tokens(config.vision.grid());
        assert_eq!(order.len(), tokens, "{place}");
        compare(&place, "packed", &packed(&config, tiles, pixels, &order), &case["packed"], 1e-5);
    }
}

/// LLaVA-NeXT's own canvases: what is chosen for a wide, a tall and a square picture.
#[test]
fn published_canvases() {
    let next = LlavaConfig::from_json(Path::new("config.json"), br#"{"model_type": "llava_next"}"#).unwrap();
    let tiling = next.tiling.unwrap();
    let grid = |width, height| tiling.layout(width, height).unwrap().grid;
    assert_eq!(grid(640, 480), [2, 2]);
    assert_eq!(grid(1024, 300), [1, 3]);
    assert_eq!(grid(300, 1024), [3, 1]);
    assert_eq!(grid(640, 320), [1, 2]);
    // 576 tokens of the whole picture, 36 rows of 48 patches and a newline.
    let tokens = tiling.layout(640, 480).unwrap().tokens(24);
    assert_eq!(tokens.len(), 576 + 36 * 49);
    assert_eq!(tokens[576 + 48], TiledToken::Newline);
    assert_eq!(tokens[576], TiledToken::Patch { tile: 1, patch: 6 * 24 });
    assert!(Tiling { canvases: vec![], side: 336 }.layout(3, 4).is_none());
}

#[test]
fn canvases_that_are_no_multiples_are_refused() {
    for canvases in ["[[336, 500]]", "[]", "[[336]]", "3", "[[0, 336]]"] {
        let json = format!(r#"{{"model_type": "llava_next", "image_grid_pinpoints": {canvases}}}"#);
        let error = LlavaConfig::from_json(Path::new("config.json"), json.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("image_grid_pinpoints"), "{error}");
    }
}

/// Visual tokens of one picture in their order, `(tokens, D)`, in f64.
fn packed(config: &LlavaConfig, tiles: usize, pixels: Vec<f64>, order: &[TiledToken]) -> Vec<f64> {
    let (side, patches) = (config.vision.image_size, config.vision.patches());
    let mut g = Graph::new();
    let x = g.input("pixels", DType::F32, &[tiles, 3, side, side]);
    let features = vision::features(&mut g, config, x);
    let tokens = projector::multi_modal(&mut g, config, Trainable::NOTHING, features);
    let index = g.input("index", DType::U32, &[order.len()]);
    let newline = llava::newline(&mut g, config, Trainable::NOTHING);
    let packed = Visual { tokens, index, newline }.rows(&mut g);
    g.output("packed", packed);
    g.verify().unwrap();
    let mut leaves: HashMap<String, Tensor> = g
        .leaves()
        .map(|leaf| {
            let values = content(leaf.name, &leaf.ty.shape).into_iter().map(f64::from).collect();
            (leaf.name.to_owned(), Tensor::new(leaf.ty.clone(), values))
        })
        .collect();
    let row = |token: &TiledToken| match *token {
        TiledToken::Patch { tile, patch } => (tile * patches + patch) as f64,
        TiledToken::Newline => f64::from(llava::NEWLINE),
    };
    let index = Tensor::new(TensorType::u32([order.len()]), order.iter().map(row).collect());
    leaves.insert("pixels".into(), Tensor::new(TensorType::f32([tiles, 3, side, side]), pixels));
    leaves.insert("index".into(), index);
    evaluate_outputs(&g, &leaves).unwrap().remove("packed").unwrap().data
}

fn compare(place: &str, name: &str, found: &[f64], expected: &Json, bound: f64) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    for (found, number) in probe(name, found).iter().zip(&expected) {
        assert!((found - number).abs() < bound * expected[0], "{place}: {name}: {found}, expected {number}");
    }
}

/// The picture that the reference makes of its size.
fn picture(width: usize, height: usize) -> Picture {
    let bytes = uniform(&format!("picture.{width}x{height}")).take(3 * width * height);
    Picture::new(width, height, bytes.map(|x| ((x + 1.0) * 128.0) as u8).collect()).unwrap()
}

fn config() -> LlavaConfig {
    let parts = read("parts.json");
    let mut config = json!({
        "model_type": "llava_next",
        "text_config": parts["text"]["vicuna"],
        "image_grid_pinpoints": read("tiling.json")["pinpoints"],
    });
    config.as_object_mut().unwrap().extend(parts["encoder"]["clip"].as_object().unwrap().clone());
    LlavaConfig::from_json(Path::new("config.json"), config.to_string().as_bytes()).unwrap()
}

fn read(file: &str) -> Json {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks");
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}
