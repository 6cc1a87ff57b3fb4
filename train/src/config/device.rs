//! The device that a configuration means, in the runtime's terms.

use viral_runtime::AdapterChoice;

use super::keys::DeviceConfig;
use super::values::Backend;

impl From<&DeviceConfig> for AdapterChoice {
    fn from(device: &DeviceConfig) -> Self {
        let backend = match device.backend {
            Backend::Auto => viral_runtime::Backend::Auto,
            Backend::Vulkan => viral_runtime::Backend::Vulkan,
            Backend::Metal => viral_runtime::Backend::Metal,
            Backend::Dx12 => viral_runtime::Backend::Dx12,
            Backend::Gl => viral_runtime::Backend::Gl,
        };
        Self { backend, adapter: device.adapter.clone() }
    }
}
