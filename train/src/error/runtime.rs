//! Errors of the device, as the user reads them.

use super::{Error, Kind};

impl From<viral_runtime::Error> for Error {
    fn from(error: viral_runtime::Error) -> Self {
        use viral_runtime::Error as Runtime;
        const DEVICES: &str = "`viral-wgpu devices` lists what this machine has";
        const SMALLER: &str =
            "lower train.batch or train.max_length, raise train.accumulation, or set train.remat = \"block\"";
        let text = error.to_string();
        let (kind, what, place, why, hint) = match error {
            Runtime::NoDevice { backend } => (
                Kind::Device,
                "no device to train on".into(),
                format!("backend {backend}"),
                "no driver offers an adapter".into(),
                "install a Vulkan driver (on Linux mesa-vulkan-drivers, or the vendor's), or try another --backend",
            ),
            Runtime::UnknownAdapter { wanted, available } => (
                Kind::Device,
                format!("no adapter matches `{wanted}`"),
                "--adapter, WGPU_ADAPTER_NAME or `device.adapter`".into(),
                format!("there are {}", available.join(", ")),
                "give a part of a name, or the number in front of it",
            ),
            Runtime::UnsuitableAdapter { adapter, why } => {
                (Kind::Device, "the adapter cannot be used".into(), adapter, why, DEVICES)
            }
            Runtime::DeviceRefused { adapter, message } => {
                (Kind::Device, "the adapter could not be opened".into(), adapter, message, DEVICES)
            }
            Runtime::Unsupported { adapter, what } => {
                (Kind::Device, format!("the adapter has no {what}"), adapter, String::new(), DEVICES)
            }
            Runtime::OutOfMemory { what, bytes, in_use } => (
                Kind::Memory,
                "out of device memory".into(),
                what,
                format!("{bytes} bytes are needed while {in_use} bytes are in use"),
                SMALLER,
            ),
            Runtime::BufferTooLarge { what, bytes, limit } => (
                Kind::Memory,
                "too large for the device".into(),
                what,
                format!("it needs {bytes} bytes in one buffer, and the device allows {limit}"),
                SMALLER,
            ),
            Runtime::DeviceLost { reason } => (
                Kind::Device,
                "the device was lost".into(),
                String::new(),
                reason,
                "start again; if it is lost again, lower train.batch or update the driver",
            ),
            _ => return Self::internal("the runtime refused a plan", text),
        };
        Self { kind, what, place, why, hint: hint.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_errors_have_their_own_exit_codes() {
        use viral_runtime::Error as Runtime;
        let wanted = "radeon".to_string();
        let unknown = Error::from(Runtime::UnknownAdapter { wanted, available: vec!["0: llvmpipe (vulkan)".into()] });
        assert_eq!(unknown.kind.exit_code(), 5);
        assert!(unknown.to_string().contains("radeon") && unknown.to_string().contains("0: llvmpipe (vulkan)"));
        assert_eq!(Error::from(Runtime::NoDevice { backend: "metal".into() }).kind.exit_code(), 5);
        let memory = Error::from(Runtime::OutOfMemory { what: "weights".into(), bytes: 9, in_use: 7 });
        assert_eq!(memory.kind.exit_code(), 6);
        assert!(memory.hint.contains("train.batch"));
        assert_eq!(Error::from(Runtime::MissingBuffer { name: "x".into() }).kind.exit_code(), 70);
    }
}
