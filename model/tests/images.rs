//! Pictures against Pillow and the library's own processor. `fixtures/make_images.py` wrote the expectations.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use viral_model::config::{Filter, ImageProcessorConfig, LlavaConfig};
use viral_model::image::{Aspect, DecodeLimits, ImageError, ImageProcessor, Picture, decode, decode_file, resize};
use viral_model::weights::TensorFile;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// SplitMix64, as in the script.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Noise, stripes of black and white, or ramps, by the seed.
fn picture(seed: usize, width: usize, height: usize) -> Picture {
    let mut random = Random(seed as u64);
    let count = width * height * 3;
    let bytes = match seed % 3 {
        0 => (0..count).map(|_| random.next() as u8).collect(),
        1 => (0..count).map(|_| 255 * (random.next() >> 63) as u8).collect(),
        _ => {
            let step = [0; 3].map(|_| random.next() as usize % 7 + 1);
            (0..count).map(|i| (((i / 3) % width + (i / 3) / width) * step[i % 3]) as u8).collect()
        }
    };
    Picture::new(width, height, bytes).unwrap()
}

#[test]
fn two_hundred_resizes_equal_pillow() {
    let cases = json("resize.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 200);
    for case in cases {
        let filter = if case[5] == "bicubic" { Filter::Bicubic } else { Filter::Bilinear };
        let source = picture(number(&case[0]), number(&case[1]), number(&case[2]));
        let resized = resize(&source, number(&case[3]), number(&case[4]), filter);
        assert_eq!((resized.width(), resized.height()), (number(&case[3]), number(&case[4])));
        assert_eq!(digest(resized.rgb()), case[6].as_str().unwrap(), "{case}");
    }
}

#[test]
fn processed_pixels_equal_the_library() {
    let cases = json("processor.json");
    for case in cases.as_array().unwrap() {
        let settings = serde_json::to_vec(&case["settings"]).unwrap();
        let config = ImageProcessorConfig::from_json(Path::new("preprocessor_config.json"), &settings).unwrap();
        let aspect = Aspect::from_name(case["aspect"].as_str().unwrap()).unwrap();
        let processor = ImageProcessor::new(config, aspect, number(&case["shape"][1])).unwrap();
        let source = picture(number(&case["seed"]), number(&case["width"]), number(&case["height"]));
        let pixels = processor.pixels(&source, Path::new("x.png")).unwrap();
        let bytes: Vec<u8> = pixels.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bytes.len(), 12 * number(&case["shape"][1]) * number(&case["shape"][2]));
        assert_eq!(digest(&bytes), case["hash"].as_str().unwrap(), "{case}");
    }
}

/// From file to tensor, on the pictures of the PyTorch reference.
#[test]
fn committed_pixels_are_those_of_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let mut compared = 0;
    for case in ["gqa", "mha"] {
        let case = root.join(case);
        let model = LlavaConfig::from_dir(&case.join("llava")).unwrap();
        let config = ImageProcessorConfig::from_dir(&case.join("llava")).unwrap();
        let processor = ImageProcessor::new(config, Aspect::Pad, model.vision.image_size).unwrap();
        let expected = read(case.join("expected.json"));
        let tensors = TensorFile::open(&case.join("expected.safetensors")).unwrap();
        for (index, row) in expected["rows"].as_array().unwrap().iter().enumerate() {
            let Some(image) = expected["samples"][number(&row["sample"])]["image"].as_str() else { continue };
            let path = case.join("images").join(image);
            let picture = decode_file(&path, &DecodeLimits::default()).unwrap();
            let pixels = processor.pixels(&picture, &path).unwrap();
            assert!(pixels == tensors.get(&format!("pixels.{index}")).unwrap().to_f32().unwrap(), "{}", path.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 3);
}

/// Lossless formats are exact; JPEG and lossy WebP stay within a few levels of Pillow's decoders.
#[test]
fn decoded_pictures_equal_pillow() {
    let answers = json("decode.json");
    let mut differing = Vec::new();
    for (name, answer) in answers.as_object().unwrap() {
        let decoded = decode_file(&fixtures().join("pictures").join(name), &DecodeLimits::default()).unwrap();
        let size = (number(&answer["width"]), number(&answer["height"]));
        assert_eq!((decoded.width(), decoded.height()), size, "{name}");
        match answer["rgb"].as_str() {
            None if digest(decoded.rgb()) == answer["hash"] => {}
            None => differing.push(name.clone()),
            Some(hex) => {
                let expected = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
                let worst = decoded.rgb().iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                println!("{name}: {worst}");
                if worst > 6 {
                    differing.push(format!("{name} by {worst} levels"));
                }
            }
        }
    }
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn margins_and_crops() {
    let source = picture(0, 3, 2);
    let square = source.padded_to_square([1, 2, 3]);
    assert_eq!((square.width(), square.height()), (3, 3));
    assert_eq!(square.rgb()[..18], *source.rgb());
    assert_eq!(square.rgb()[18..], [1, 2, 3].repeat(3));
    let crop = source.centre_crop(1, 5);
    assert_eq!(crop.rgb()[..6], [0; 6]);
    assert_eq!(crop.rgb()[6..9], source.rgb()[3..6]);
    assert_eq!(crop.rgb()[12..], [0; 3]);
    assert!(Picture::new(0, 3, Vec::new()).is_none() && Picture::new(1, 1, vec![0; 4]).is_none());
    let clip = ImageProcessor::new(ImageProcessorConfig::clip(8), Aspect::Pad, 8).unwrap();
    assert_eq!(clip.pad_colour(), [122, 116, 104]);
}

#[test]
fn processor_must_fit_the_tower() {
    let message = |config: ImageProcessorConfig, aspect| {
        ImageProcessor::new(config, aspect, 28).map(drop).unwrap_err().to_string()
    };
    let clip = ImageProcessorConfig::clip(24);
    assert!(
        message(clip.clone(), Aspect::Pad).contains("it yields 24 x 24 pixels, the vision tower's `image_size` is 28")
    );
    let uncropped = ImageProcessorConfig { crop: None, ..ImageProcessorConfig::clip(28) };
    assert!(message(uncropped.clone(), Aspect::Square).contains("pictures of varying size"));
    ImageProcessor::new(uncropped, Aspect::Pad, 28).unwrap();
}

#[test]
fn bombs_are_refused_before_decoding() {
    let limits = DecodeLimits { max_side: 12, max_pixels: 1000, ..DecodeLimits::default() };
    let file = fixtures().join("pictures/rgb.png");
    let message = decode_file(&file, &limits).unwrap_err().to_string();
    assert!(message.contains("rgb.png is too large: 13 x 9 pixels; at most 12 a side and 1000 in all"), "{message}");
    let limits = DecodeLimits { max_side: 13, max_pixels: 116, ..DecodeLimits::default() };
    assert!(matches!(decode_file(&file, &limits), Err(ImageError::TooLarge { .. })));
    decode_file(&file, &DecodeLimits { max_side: 13, max_pixels: 117, ..DecodeLimits::default() }).unwrap();

    let limits = DecodeLimits { max_bytes: 400, ..DecodeLimits::default() };
    let message = decode_file(&file, &limits).unwrap_err().to_string();
    assert!(message.contains("428 bytes; at most 400"), "{message}");

    // A header that announces a hundred gigapixels, with a correct checksum and no data behind it.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[16..24].copy_from_slice(&[0, 4, 0, 0, 0, 6, 0, 0]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode(&bytes, Path::new("bomb.png"), &DecodeLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");

    // A thin line would become gigapixels when its short side is scaled up.
    let line = Picture::filled(1, 30_000, [9; 3]);
    let processor = ImageProcessor::new(ImageProcessorConfig::clip(336), Aspect::Square, 336).unwrap();
    let message = processor.pixels(&line, Path::new("line.png")).unwrap_err().to_string();
    assert!(message.contains("1 x 30000 pixels would be scaled to 336 x 10080000"), "{message}");
    let padded = ImageProcessor::new(ImageProcessorConfig::clip(8), Aspect::Pad, 8).unwrap();
    padded.pixels(&Picture::filled(1, 300, [9; 3]), Path::new("line.png")).unwrap();
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn unreadable_pictures_are_named() {
    let limits = DecodeLimits::default();
    let message = |bytes: &[u8]| decode(bytes, Path::new("a/b.png"), &limits).unwrap_err().to_string();
    assert_eq!(message(b"plain text"), "a/b.png is not a PNG, JPEG, WebP, BMP or GIF image");
    assert_eq!(message(b""), "a/b.png is not a PNG, JPEG, WebP, BMP or GIF image");
    let missing = decode_file(&fixtures().join("none.png"), &limits).unwrap_err().to_string();
    assert!(missing.contains("cannot read image") && missing.contains("none.png"), "{missing}");
    let folder = decode_file(&fixtures(), &limits).unwrap_err().to_string();
    assert!(folder.contains("not a regular file"), "{folder}");
}

/// Every file cut short at every length gives an error, or the whole picture if only bytes behind it were cut; every file
/// with bytes changed gives a picture or an error, never a panic.
#[test]
fn damaged_pictures_do_not_panic() {
    let limits = DecodeLimits { max_side: 4096, max_pixels: 1 << 20, ..DecodeLimits::default() };
    let mut random = Random(1);
    for entry in std::fs::read_dir(fixtures().join("pictures")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let whole = decode(&bytes, &path, &limits).unwrap();
        for end in 0..bytes.len() {
            match decode(&bytes[..end], &path, &limits) {
                Ok(cut) => assert_eq!(cut, whole, "{} cut at {end}", path.display()),
                Err(error) => assert!(error.to_string().contains(&path.display().to_string())),
            }
        }
        for _ in 0..200 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                let at = random.next() as usize % damaged.len();
                damaged[at] = random.next() as u8;
            }
            let _ = decode(&damaged, &path, &limits);
        }
    }
}
