//! The device that a configuration means, in the runtime's terms.

use viral_runtime::AdapterChoice;

use super::keys::DeviceConfig;
use super::values::Backend;

impl DeviceConfig {
    /// Which adapter to open.
    pub fn choice(&self) -> AdapterChoice {
        let backend = match self.backend {
            Backend::Auto => viral_runtime::Backend::Auto,
            Backend::Vulkan => viral_runtime::Backend::Vulkan,
            Backend::Metal => viral_runtime::Backend::Metal,
            Backend::Dx12 => viral_runtime::Backend::Dx12,
            Backend::Gl => viral_runtime::Backend::Gl,
        };
        AdapterChoice { backend, adapter: self.adapter.clone() }
    }
}
