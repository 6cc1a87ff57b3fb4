//! The picture folder: which files a record may name, and which are worth decoding.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Component, Path, PathBuf};

use image::{ImageError, ImageReader};
use viral_model::image::DecodeLimits;

use super::defect::Rule;

/// What a picture may measure, checked before a pixel is decoded. Padding to a square makes a picture as large as the
/// square of its longer side; this bound keeps even that below 179 million pixels, where Pillow refuses to go on.
pub const LIMITS: DecodeLimits = DecodeLimits { max_side: 13_377, max_pixels: 89_478_485, max_bytes: 256 << 20 };

/// A folder of pictures that records refer to by relative path. Nothing outside the folder is ever opened.
#[derive(Clone, Debug)]
pub struct PictureFolder {
    /// As the user named it, for messages.
    named: PathBuf,
    /// With links resolved; `None` if there is no such folder.
    resolved: Option<PathBuf>,
}

impl PictureFolder {
    /// The folder at `root`. A folder that does not exist has no pictures, which is fine for text-only data.
    pub fn new(root: &Path) -> Self {
        Self { named: root.to_owned(), resolved: fs::canonicalize(root).ok() }
    }

    /// The file that a record's path means.
    ///
    /// # Errors
    /// The rule that the path breaks, with what was found: the path is absolute or leaves the folder, by `..` or
    /// through a link, or there is no such file.
    pub fn locate(&self, relative: &str) -> Result<PathBuf, (Rule, String)> {
        let path = Path::new(relative);
        for component in path.components() {
            match component {
                Component::Normal(_) | Component::CurDir => {}
                Component::ParentDir => return Err((Rule::ImageOutsideRoot, format!("`{relative}` contains `..`"))),
                Component::RootDir | Component::Prefix(_) => {
                    return Err((Rule::ImageOutsideRoot, format!("`{relative}` is absolute")));
                }
            }
        }
        let missing = || (Rule::ImageMissing, format!("there is no file `{}`", self.named.join(path).display()));
        let Some(root) = &self.resolved else {
            return Err((Rule::ImageMissing, format!("there is no folder `{}`", self.named.display())));
        };
        let resolved = fs::canonicalize(root.join(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(),
            _ => (Rule::ImageUnreadable, format!("`{}`: {error}", self.named.join(path).display())),
        })?;
        if !resolved.starts_with(root) {
            let detail = format!("`{relative}` is a link that leaves `{}`", self.named.display());
            return Err((Rule::ImageOutsideRoot, detail));
        }
        if !resolved.is_file() {
            return Err((Rule::ImageMissing, format!("`{}` is no regular file", self.named.join(path).display())));
        }
        Ok(resolved)
    }
}

/// Reads a picture's width and height out of its header: it must be of a known format and of bearable size. Damage further on shows when the
/// picture is decoded.
///
/// # Errors
/// The rule that the file breaks, with what was found.
pub fn check_header(file: &Path) -> Result<[usize; 2], (Rule, String)> {
    let unreadable = |error: io::Error| (Rule::ImageUnreadable, format!("`{}`: {error}", file.display()));
    let opened = File::open(file).map_err(unreadable)?;
    let reader = ImageReader::new(BufReader::new(opened)).with_guessed_format().map_err(unreadable)?;
    if reader.format().is_none() {
        return Err((Rule::ImageBroken, format!("`{}` is no picture: {}", file.display(), first_bytes(file))));
    }
    let (width, height) = reader.into_dimensions().map_err(|error| match error {
        ImageError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => unreadable(error),
        error => (Rule::ImageBroken, format!("`{}`: {error}", file.display())),
    })?;
    if width == 0 || height == 0 {
        return Err((Rule::ImageBroken, format!("`{}` has {width} × {height} pixels", file.display())));
    }
    let DecodeLimits { max_side, max_pixels, .. } = LIMITS;
    if width.max(height) > max_side || u64::from(width) * u64::from(height) > max_pixels {
        let found = format!("`{}` has {width} × {height} pixels", file.display());
        return Err((
            Rule::ImageTooLarge,
            format!("{found}; at most {max_side} a side and {max_pixels} in all are read"),
        ));
    }
    Ok([width as usize, height as usize])
}

/// What the file holds instead of a picture, for the most frequent accidents.
fn first_bytes(file: &Path) -> String {
    let mut start = [0; 64];
    let length = File::open(file).and_then(|mut file| io::Read::read(&mut file, &mut start)).unwrap_or(0);
    let start = &start[..length];
    if start.is_empty() {
        "it is empty".into()
    } else if start.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer; run `git lfs pull`".into()
    } else if start.trim_ascii_start().starts_with(b"<") {
        "it is an HTML or XML page".into()
    } else {
        let hex: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("it begins with the bytes {}", hex.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule<T>(result: Result<T, (Rule, String)>) -> Option<Rule> {
        result.err().map(|(rule, _)| rule)
    }

    #[test]
    fn paths_stay_inside_the_folder() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("images");
        fs::create_dir_all(root.join("sub"))?;
        fs::write(root.join("sub/a.png"), "x")?;
        fs::write(dir.path().join("secret"), "x")?;
        let folder = PictureFolder::new(&root);
        assert!(folder.locate("sub/a.png").is_ok());
        assert!(folder.locate("./sub/a.png").is_ok());
        for outside in ["../secret", "sub/../../secret", "/etc/hostname", "sub/../sub/a.png"] {
            assert_eq!(rule(folder.locate(outside)), Some(Rule::ImageOutsideRoot), "{outside}");
        }
        for missing in ["b.png", "", ".", "sub", "sub/a.png/x", "a\0b"] {
            assert!(rule(folder.locate(missing)).is_some(), "{missing:?}");
        }
        assert_eq!(rule(folder.locate("b.png")), Some(Rule::ImageMissing));
        assert_eq!(rule(PictureFolder::new(&dir.path().join("none")).locate("a")), Some(Rule::ImageMissing));
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn links_may_not_leave_the_folder() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("images");
        fs::create_dir(&root)?;
        fs::write(root.join("a.png"), "x")?;
        fs::write(dir.path().join("secret"), "x")?;
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("out"))?;
        std::os::unix::fs::symlink(root.join("a.png"), root.join("in"))?;
        std::os::unix::fs::symlink(dir.path(), root.join("up"))?;
        let folder = PictureFolder::new(&root);
        assert!(folder.locate("in").is_ok());
        assert_eq!(rule(folder.locate("out")), Some(Rule::ImageOutsideRoot));
        assert_eq!(rule(folder.locate("up/secret")), Some(Rule::ImageOutsideRoot));
        // The folder itself may be a link.
        std::os::unix::fs::symlink(&root, dir.path().join("link"))?;
        assert!(PictureFolder::new(&dir.path().join("link")).locate("a.png").is_ok());
        Ok(())
    }

    #[test]
    fn headers_tell_pictures_from_accidents() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("a.png");
        image::RgbImage::new(5, 3).save(&file)?;
        assert!(check_header(&file).is_ok());
        let png = fs::read(&file)?;

        let check = |bytes: &[u8]| -> io::Result<Option<(Rule, String)>> {
            fs::write(&file, bytes)?;
            Ok(check_header(&file).err())
        };
        for (bytes, reason) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            (b"\n<!doctype html>", "HTML"),
            (b"\x00\x01\x02", "00 01 02"),
            (&png[..12], "a.png"),
        ] {
            match check(bytes)? {
                Some((Rule::ImageBroken, detail)) => assert!(detail.contains(reason), "{detail}"),
                other => panic!("{reason}: {other:?}"),
            }
        }
        // The header alone claims a huge picture; nothing is decoded.
        let mut bomb = png;
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(check(&bomb)?.map(|(rule, _)| rule), Some(Rule::ImageTooLarge));
        assert_eq!(rule(check_header(&dir.path().join("none"))), Some(Rule::ImageUnreadable));
        Ok(())
    }

    /// The checksum of PNG chunks.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }
}
