//! The version floor of the image in the TPM.

use crate::common::Swtpm;
use bulla_keys::{KeyError, Provider, floor, raise_floor};

#[test]
fn g2_a_version_floor_rises_and_never_falls_whatever_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    let provider = Provider::Tpm { tcti: swtpm.tcti() };
    assert_eq!(floor(&provider).unwrap(), None);
    assert_eq!(raise_floor(&provider, 7).unwrap(), 7);
    assert_eq!(floor(&provider).unwrap(), Some(7));
    assert_eq!(raise_floor(&provider, 6).unwrap(), 7);
    assert_eq!(floor(&provider).unwrap(), Some(7));
    assert_eq!(raise_floor(&provider, (1 << 48) - 1).unwrap(), (1 << 48) - 1);
    drop(swtpm);
    let swtpm = Swtpm::start(dir.path());
    let provider = Provider::Tpm { tcti: swtpm.tcti() };
    assert_eq!(floor(&provider).unwrap(), Some((1 << 48) - 1));
    assert!(matches!(floor(&Provider::Software), Err(KeyError::NotHardware { .. })));
    assert!(matches!(raise_floor(&Provider::Software, 1), Err(KeyError::NotHardware { .. })));
}
