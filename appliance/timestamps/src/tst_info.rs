//! `TSTInfo` of RFC 3161, 2.4.2: what an authority says, and nothing of whether it may say so.

use crate::certificate::any_critical;
use crate::der::{
    self, BOOLEAN, GENERALIZED_TIME, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader,
};
use crate::der::{Element, Result as Der, SEQUENCE};
use crate::refusal::Refusal;
use crate::signature::{AlgorithmIdentifier, Digest};
use crate::time;

/// Most bytes of a serial number: 160 bits, and the sign's.
const SERIAL_BYTES_MAX: usize = 21;

#[derive(Debug)]
pub(crate) struct TstInfo<'a> {
    /// Content of the policy's identifier.
    pub policy: &'a [u8],
    pub imprint: [u8; 32],
    /// Content of the serial number, without a leading zero.
    pub serial: &'a [u8],
    pub gen_time_micros: u64,
    /// Whether tenths of a microsecond were dropped.
    pub rounded: bool,
    pub accuracy_micros: Option<u64>,
    /// Content of the nonce.
    pub nonce: Option<&'a [u8]>,
    /// A GeneralName.
    pub authority: Option<&'a [u8]>,
}

/// The fields as they stand, before anything is asked of them.
struct Fields<'a> {
    version: u64,
    policy: &'a [u8],
    algorithm: AlgorithmIdentifier<'a>,
    imprint: &'a [u8],
    serial: &'a [u8],
    gen_time: &'a [u8],
    accuracy: Option<Element<'a>>,
    nonce: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    critical: bool,
}

impl<'a> TstInfo<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let fields = fields(bytes).map_err(|Malformed| Refusal::Malformed("content (TSTInfo)"))?;
        if fields.version != 1 {
            return Err(Refusal::Version("content (TSTInfo)"));
        }
        if Digest::of(&fields.algorithm) != Some(Digest::Sha256) {
            return Err(Refusal::ImprintAlgorithm);
        }
        let imprint = fields.imprint.try_into().map_err(|_| Refusal::ImprintAlgorithm)?;
        let (gen_time_micros, rounded) =
            time::of_stamp(fields.gen_time).map_err(|Malformed| Refusal::Time)?;
        let accuracy_micros =
            fields.accuracy.map(accuracy).transpose().map_err(|Malformed| Refusal::Accuracy)?;
        if fields.critical {
            return Err(Refusal::CriticalExtension);
        }
        Ok(TstInfo {
            policy: fields.policy,
            imprint,
            serial: fields.serial,
            gen_time_micros,
            rounded,
            accuracy_micros,
            nonce: fields.nonce,
            authority: fields.authority,
        })
    }
}

fn fields(bytes: &[u8]) -> Der<Fields<'_>> {
    let mut info = Reader::whole(bytes, SEQUENCE)?;
    let version = info.take(INTEGER)?.number()?;
    let policy = info.take(OBJECT_IDENTIFIER)?.content;
    let mut imprint = info.enter(SEQUENCE)?;
    let algorithm = AlgorithmIdentifier::read(&mut imprint)?;
    let hash = imprint.take(OCTET_STRING)?.content;
    imprint.end()?;
    let serial = info.take(INTEGER)?.content;
    if serial.len() > SERIAL_BYTES_MAX {
        return Err(Malformed);
    }
    let gen_time = info.take(GENERALIZED_TIME)?.content;
    let accuracy = info.take_if(SEQUENCE)?;
    // `ordering`: whether stamps of this authority can be ordered among themselves. Nothing here does. FALSE is the
    // default, which some authorities write all the same.
    info.take_if(BOOLEAN)?;
    let nonce = info.take_if(INTEGER)?.map(|nonce| nonce.content);
    let authority = info.take_if(der::context(0))?.map(|name| name.content);
    let critical = match info.take_if(der::context(1))? {
        None => false,
        Some(extensions) => any_critical(extensions.open())?,
    };
    info.end()?;
    Ok(Fields {
        version,
        policy,
        algorithm,
        imprint: hash,
        serial: der::unsigned(serial)?,
        gen_time,
        accuracy,
        nonce,
        authority,
        critical,
    })
}

/// Seconds, thousandths and millionths; each may be left out, and the last two are 1 to 999.
fn accuracy(element: Element<'_>) -> Der<u64> {
    let mut accuracy = element.open();
    let part = |element: Option<Element<'_>>| -> Der<u64> {
        let Some(element) = element else { return Ok(0) };
        let raw = der::element(INTEGER, &[element.content]);
        let number = Reader::new(&raw).take(INTEGER)?.number()?;
        if (1..=999).contains(&number) { Ok(number) } else { Err(Malformed) }
    };
    let seconds = accuracy.take_if(INTEGER)?.map(|seconds| seconds.number()).transpose()?.unwrap_or(0);
    let millis = part(accuracy.take_if(der::context_primitive(0))?)?;
    let micros = part(accuracy.take_if(der::context_primitive(1))?)?;
    accuracy.end()?;
    // An authority that is off by more than a day says nothing that anybody asked.
    if seconds > 86_400 {
        return Err(Malformed);
    }
    Ok(seconds * time::SECOND + millis * 1000 + micros)
}
