//! Where programs of this project keep what can be made again.

use std::path::PathBuf;

/// The folder of compiled pipelines; nothing where the environment names no place for caches.
pub(super) fn pipelines() -> Option<PathBuf> {
    here().map(|folder| folder.join("pipelines"))
}

/// The folder of what was measured about kernels, likewise.
pub(super) fn tuning() -> Option<PathBuf> {
    here().map(|folder| folder.join("tuning"))
}

fn here() -> Option<PathBuf> {
    folder(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// `VIRAL_CACHE_DIR`, else `viral-wgpu` in the user's cache folder. `scripts/software-vulkan` does the same.
fn folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let home = |below: &str| Some(variable("HOME")?.join(below));
    let user = || {
        if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home("Library/Caches")
        } else {
            variable("XDG_CACHE_HOME").or_else(|| home(".cache"))
        }
    };
    variable("VIRAL_CACHE_DIR").or_else(|| Some(user()?.join("viral-wgpu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_this_project_comes_first() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(folder(all), Some("/VIRAL_CACHE_DIR".into()));
        assert!(
            folder(|name| all(name).filter(|_| name != "VIRAL_CACHE_DIR")).is_some_and(|f| f.ends_with("viral-wgpu"))
        );
        assert_eq!(folder(|_| None), None);
    }
}
