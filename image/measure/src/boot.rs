//! What is measured between power-on and a running box: PCR 4 (the programs that were started), PCR 7 (Secure Boot and
//! its keys), PCR 11 (the parts of the kernel image, and the phases of the boot).
//!
//! Refuses to do: expect anything of firmware that differs from board to board (PCR 0 to 3), or of its settings (5).
//! The kernel inside the kernel image is in PCR 11; with Secure Boot on, firmware does not measure it into PCR 4 again.
//! Invariant: the order is the one in which a machine measures, so that a replay gives the values that its TPM has.

use bulla_formats::hash::sha256;

use crate::log::{Expected, Kind};
use crate::pe::{Pe, PeError};

/// EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID as they lie in memory (UEFI 2.10, 3.3 and 32.6).
const GLOBAL_VARIABLE: Guid =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
const SECURITY_DATABASE: Guid =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// EFI_CERT_X509_GUID.
const X509: Guid =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Sections that systemd-stub measures, in its order (systemd 257, `UnifiedSection`); the signatures over PCR 11, which
/// cannot be part of it, are the one that is left out.
const MEASURED: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey",
    ".profile", ".dtbauto", ".hwids",
];
/// What systemd-pcrphase extends PCR 11 with before `bulla-box` starts.
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];

/// A GUID as it lies in memory.
pub type Guid = [u8; 16];

/// The keys that a machine's firmware was given, as certificates (DER), and under which name.
pub struct SecureBoot<'a> {
    /// Who enrolled them, as the firmware notes.
    pub owner: Guid,
    /// Platform key.
    pub platform: &'a [u8],
    /// Key exchange key.
    pub exchange: &'a [u8],
    /// What programs are verified by.
    pub database: &'a [u8],
    /// What is forbidden: signature lists, as they lie in the variable.
    pub forbidden: &'a [u8],
}

/// Everything that is measured.
///
/// # Errors
/// When a program is none, or the kernel image has no kernel.
pub fn measurements(loader: &[u8], image: &[u8], keys: &SecureBoot<'_>) -> Result<Vec<Expected>, PeError> {
    let mut events = secure_boot(keys);
    let image_parsed = Pe::parse(image)?;
    image_parsed.section(".linux").ok_or(PeError::NotUnderstood("it has no section .linux"))?;
    events.push(Expected::of(4, Kind::Action, b"Calling EFI Application from Boot Option".to_vec()));
    events.push(Expected::of(4, Kind::Separator, vec![0; 4]));
    events.push(started("boot loader", &Pe::parse(loader)?)?);
    events.push(started("kernel image", &image_parsed)?);
    for name in MEASURED {
        if let Some(section) = image_parsed.section(name) {
            let with_end = [name.as_bytes(), &[0]].concat();
            let data = name.as_bytes().to_vec();
            let digests = [sha256(&[&with_end]).0, sha256(&[section.content]).0];
            events.extend(digests.map(|digest| Expected {
                pcr: 11,
                kind: Kind::Ipl,
                digest,
                data: data.clone(),
            }));
        }
    }
    events.extend(PHASES.map(|phase| Expected::of(11, Kind::Ipl, phase.as_bytes().to_vec())));
    Ok(events)
}

fn started(what: &str, program: &Pe<'_>) -> Result<Expected, PeError> {
    let digest = program.authenticode()?;
    Ok(Expected { pcr: 4, kind: Kind::Application, digest, data: what.as_bytes().to_vec() })
}

fn secure_boot(keys: &SecureBoot<'_>) -> Vec<Expected> {
    let list = |certificate| signature_list(&keys.owner, certificate);
    let variables = [
        (GLOBAL_VARIABLE, "SecureBoot", vec![1]),
        (GLOBAL_VARIABLE, "PK", list(keys.platform)),
        (GLOBAL_VARIABLE, "KEK", list(keys.exchange)),
        (SECURITY_DATABASE, "db", list(keys.database)),
        (SECURITY_DATABASE, "dbx", keys.forbidden.to_vec()),
    ];
    let mut events: Vec<Expected> = variables
        .iter()
        .map(|(guid, name, value)| Expected::of(7, Kind::Variable, variable(guid, name, value)))
        .collect();
    events.push(Expected::of(7, Kind::Separator, vec![0; 4]));
    // What verified the boot loader; the kernel image is verified by the same, which is not measured again.
    let authority = [&keys.owner, keys.database].concat();
    events.push(Expected::of(7, Kind::Authority, variable(&SECURITY_DATABASE, "db", &authority)));
    events
}

/// UEFI_VARIABLE_DATA (PFP 1.06, 10.2.6).
fn variable(guid: &Guid, name: &str, value: &[u8]) -> Vec<u8> {
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let lengths = [(units.len() / 2) as u64, value.len() as u64].map(u64::to_le_bytes);
    [guid.as_slice(), &lengths.concat(), &units, value].concat()
}

/// EFI_SIGNATURE_LIST with one certificate (UEFI 2.10, 32.4.1).
fn signature_list(owner: &Guid, certificate: &[u8]) -> Vec<u8> {
    let signature = (owner.len() + certificate.len()) as u32;
    let lengths = [28 + signature, 0, signature].map(u32::to_le_bytes);
    [X509.as_slice(), &lengths.concat(), owner, certificate].concat()
}
