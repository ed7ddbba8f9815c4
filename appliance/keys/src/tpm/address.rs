//! Where the TPM is: a kernel device with resource manager, or swtpm over TCP.
//!
//! Refuses: everything else, explicitly. The TSS library silently takes `swtpm:path=...` for localhost, and a device
//! without resource manager can be opened only once, while certifying the counter needs a second connection.

use crate::KeyError;
use std::path::PathBuf;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TctiNameConf};

/// A checked TPM address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A character device such as `/dev/tpmrm0`.
    Device(PathBuf),
    /// swtpm's data port; its control port is the next one.
    Swtpm { host: String, port: u16 },
}

impl Address {
    /// Reads `device:<path>` or `swtpm:host=<host>,port=<port>`.
    pub(crate) fn parse(tcti: &str) -> Result<Self, KeyError> {
        let refuse = |reason| KeyError::Address { tcti: tcti.to_owned(), reason };
        if let Some(path) = tcti.strip_prefix("device:") {
            if !path.starts_with('/') {
                return Err(refuse("device: needs an absolute path, such as device:/dev/tpmrm0"));
            }
            if path.strip_prefix("/dev/tpm").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
                return Err(refuse("use the device with resource manager, /dev/tpmrm<n>"));
            }
            return Ok(Self::Device(path.into()));
        }
        let options = tcti.strip_prefix("swtpm:").ok_or_else(|| {
            refuse("expected device:<path> or swtpm:host=<host>,port=<port>; for a box also signer:<path>")
        })?;
        let (mut host, mut port) = (None, None);
        for option in options.split(',') {
            match option.split_once('=') {
                Some(("host", value)) if host.is_none() && !value.is_empty() => host = Some(value.to_owned()),
                Some(("port", value)) if port.is_none() => {
                    port = Some(value.parse().map_err(|_| refuse("port is no number up to 65534"))?);
                }
                _ => return Err(refuse("swtpm: takes host=<host> and port=<port>, each once; no path=")),
            }
        }
        match (host, port) {
            (Some(host), Some(port)) if port != 0 && port < u16::MAX => {
                let address = Self::Swtpm { host, port };
                // Better said of the configuration than at the first connection.
                address.name_conf().map_err(|_| refuse("host is neither a host name nor an IP address"))?;
                Ok(address)
            }
            _ => Err(refuse("swtpm: needs host and a port from 1 to 65534")),
        }
    }

    /// The same for the TSS library.
    pub(crate) fn name_conf(&self) -> Result<TctiNameConf, KeyError> {
        let parsed = match self {
            Self::Device(path) => path.to_string_lossy().parse::<DeviceConfig>().map(TctiNameConf::Device),
            Self::Swtpm { host, port } => {
                format!("host={host},port={port}").parse::<NetworkTPMConfig>().map(TctiNameConf::Swtpm)
            }
        };
        parsed.map_err(|_| KeyError::Address {
            tcti: format!("{self:?}"),
            reason: "the TSS library does not take this host or path",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_addresses_are_taken() {
        assert_eq!(
            Address::parse("swtpm:host=127.0.0.1,port=2321").unwrap(),
            Address::Swtpm { host: "127.0.0.1".into(), port: 2321 }
        );
        assert_eq!(Address::parse("device:/dev/tpmrm0").unwrap(), Address::Device("/dev/tpmrm0".into()));
        for wrong in [
            "",
            "swtpm",
            "swtpm:",
            "swtpm:path=/run/tpm.sock",
            "swtpm:host=a,port=1,path=/x",
            "swtpm:host=a",
            "swtpm:port=2321",
            "swtpm:host=a,port=0",
            "swtpm:host=a,port=65535",
            "swtpm:host=a,port=1,port=2",
            "swtpm:host=a=b,port=1",
            "swtpm:host=-a,port=1",
            "device:tpm",
            "device:/dev/tpm0",
            "mssim:host=a,port=1",
        ] {
            assert!(matches!(Address::parse(wrong), Err(KeyError::Address { .. })), "{wrong}");
        }
    }
}
