//! The CMS around a stamp (RFC 5652, 5): one signer, its attributes, the certificates it sent along.
//!
//! Refuses to do: more than one signer, attribute certificates, content of another type.
//! Invariant: `attributes` are in the order that DER gives a SET OF, which is what the signature is over.

use crate::der::{
    self, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader, Result as Der, SEQUENCE, SET,
};
use crate::oid;
use crate::refusal::Refusal;
use crate::signature::{AlgorithmIdentifier, Digest};

/// Most certificates in a stamp.
const CERTIFICATES_MAX: usize = 32;
/// Most attributes, hash algorithms and signers that are looked at.
const MEMBERS_MAX: usize = 32;

/// How a signer's certificate is named.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SignerName<'a> {
    /// DER of the issuer's name, content of the serial number.
    IssuerAndSerial(&'a [u8], &'a [u8]),
    KeyIdentifier(&'a [u8]),
}

/// A signed attribute.
#[derive(Debug, Clone, Copy)]
struct Attribute<'a> {
    raw: &'a [u8],
    oid: &'a [u8],
    values: Reader<'a>,
}

#[derive(Debug)]
pub(crate) struct SignedData<'a> {
    /// DER of the TSTInfo.
    pub content: &'a [u8],
    pub certificates: Vec<&'a [u8]>,
    pub signer: SignerName<'a>,
    pub digest: Digest,
    pub signature_algorithm: AlgorithmIdentifier<'a>,
    pub signature: &'a [u8],
    attributes: Vec<Attribute<'a>>,
}

impl<'a> SignedData<'a> {
    /// Takes a ContentInfo apart.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let outer = |Malformed| Refusal::Malformed("ContentInfo");
        let mut info = Reader::whole(bytes, SEQUENCE).map_err(outer)?;
        if info.take(OBJECT_IDENTIFIER).map_err(outer)?.content != oid::SIGNED_DATA {
            return Err(Refusal::NotSigned);
        }
        let signed = info.enter(der::context(0)).and_then(|mut inside| {
            let signed = inside.enter(SEQUENCE)?;
            inside.end()?;
            Ok(signed)
        });
        info.end().map_err(outer)?;
        Self::read_inside(signed.map_err(outer)?)
    }

    fn read_inside(mut data: Reader<'a>) -> Result<Self, Refusal> {
        let malformed = |Malformed| Refusal::Malformed("SignedData");
        let version = data.take(INTEGER).and_then(|version| version.number()).map_err(malformed)?;
        let digests = data.enter(SET).and_then(|digests| digests.all(MEMBERS_MAX)).map_err(malformed)?;
        let (kind, content) = content(&mut data).map_err(malformed)?;
        if kind != oid::TST_INFO {
            return Err(Refusal::NotAStamp);
        }
        // RFC 5652, 5.1: content of another type than data makes it version 3; 4 and 5 have certificates of other kinds.
        if version != 3 {
            return Err(Refusal::Version("SignedData"));
        }
        let content = content.ok_or(Refusal::Malformed("SignedData"))?;
        let certificates = match data.take_if(der::context(0)).map_err(malformed)? {
            None => Vec::new(),
            Some(set) => set.open().all(CERTIFICATES_MAX).map_err(malformed)?,
        };
        if certificates.iter().any(|certificate| certificate.tag != SEQUENCE) {
            return Err(malformed(Malformed));
        }
        // Revocation lists: not asked for, not judged.
        data.take_if(der::context(1)).map_err(malformed)?;
        let signers = data.enter(SET).and_then(|signers| signers.all(MEMBERS_MAX)).map_err(malformed)?;
        data.end().map_err(malformed)?;
        let [signer] = signers[..] else { return Err(Refusal::Signers(signers.len())) };
        let signer = Signer::read(signer.raw).map_err(|Malformed| Refusal::Malformed("SignerInfo"))?;
        let expected = match signer.name {
            SignerName::IssuerAndSerial(..) => 1,
            SignerName::KeyIdentifier(_) => 3,
        };
        if signer.version != expected {
            return Err(Refusal::Version("SignerInfo"));
        }
        let attributes = signer.attributes.ok_or(Refusal::AttributeMissing("contentType"))?;
        let digest = Digest::of(&signer.digest).ok_or(Refusal::Algorithm("hash"))?;
        let announced = |element: &der::Element<'_>| {
            let algorithm = AlgorithmIdentifier::read(&mut Reader::new(element.raw));
            algorithm.is_ok_and(|algorithm| Digest::of(&algorithm) == Some(digest))
        };
        if !digests.iter().any(announced) {
            return Err(malformed(Malformed));
        }
        Ok(SignedData {
            content,
            certificates: certificates.iter().map(|certificate| certificate.raw).collect(),
            signer: signer.name,
            digest,
            signature_algorithm: signer.signature_algorithm,
            signature: signer.signature,
            attributes: attributes_of(attributes)?,
        })
    }

    /// The one value of an attribute.
    pub fn attribute(&self, oid: &[u8]) -> Option<&'a [u8]> {
        let attribute = self.attributes.iter().find(|attribute| attribute.oid == oid)?;
        // That there is exactly one value was checked when the attributes were read.
        Reader::any(&mut attribute.values.clone()).ok().map(|value| value.raw)
    }

    /// What the signature is over: DER of the attributes as a SET OF.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.attributes.iter().map(|attribute| attribute.raw).collect();
        der::element(SET, &parts)
    }
}

fn content<'a>(data: &mut Reader<'a>) -> Der<(&'a [u8], Option<&'a [u8]>)> {
    let mut encapsulated = data.enter(SEQUENCE)?;
    let kind = encapsulated.take(OBJECT_IDENTIFIER)?.content;
    let content = match encapsulated.take_if(der::context(0))? {
        None => None,
        Some(explicit) => {
            let mut explicit = explicit.open();
            let octets = explicit.any()?;
            explicit.end()?;
            Some(octets)
        }
    };
    encapsulated.end()?;
    Ok((kind, content.filter(|octets| octets.tag == OCTET_STRING).map(|octets| octets.content)))
}

struct Signer<'a> {
    version: u64,
    name: SignerName<'a>,
    digest: AlgorithmIdentifier<'a>,
    attributes: Option<Reader<'a>>,
    signature_algorithm: AlgorithmIdentifier<'a>,
    signature: &'a [u8],
}

impl<'a> Signer<'a> {
    fn read(bytes: &'a [u8]) -> Der<Self> {
        let mut signer = Reader::whole(bytes, SEQUENCE)?;
        let version = signer.take(INTEGER)?.number()?;
        let name = match signer.take_if(der::context_primitive(0))? {
            Some(identifier) => SignerName::KeyIdentifier(identifier.content),
            None => {
                let mut named = signer.enter(SEQUENCE)?;
                let issuer = named.take(SEQUENCE)?.raw;
                let serial = named.take(INTEGER)?.content;
                named.end()?;
                SignerName::IssuerAndSerial(issuer, serial)
            }
        };
        let digest = AlgorithmIdentifier::read(&mut signer)?;
        let attributes = signer.take_if(der::context(0))?.map(|attributes| attributes.open());
        let signature_algorithm = AlgorithmIdentifier::read(&mut signer)?;
        let signature = signer.take(OCTET_STRING)?.content;
        // Unsigned attributes: whatever anybody has added since.
        signer.take_if(der::context(1))?;
        signer.end()?;
        Ok(Signer { version, name, digest, attributes, signature_algorithm, signature })
    }
}

fn attributes_of(list: Reader<'_>) -> Result<Vec<Attribute<'_>>, Refusal> {
    let malformed = |Malformed| Refusal::Malformed("signed attributes");
    let mut found: Vec<Attribute<'_>> = Vec::new();
    for element in list.all(MEMBERS_MAX).map_err(malformed)? {
        let read = || -> Der<(&[u8], Reader<'_>)> {
            let mut inside = Reader::whole(element.raw, SEQUENCE)?;
            let oid = inside.take(OBJECT_IDENTIFIER)?.content;
            let values = inside.enter(SET)?;
            inside.end()?;
            Ok((oid, values))
        };
        let (oid, values) = read().map_err(malformed)?;
        let count = values.all(MEMBERS_MAX).map_err(malformed)?.len();
        if count != 1 || found.iter().any(|other| other.oid == oid) {
            return Err(Refusal::AttributeRepeated);
        }
        found.push(Attribute { raw: element.raw, oid, values });
    }
    found.sort_by(|one, other| one.raw.cmp(other.raw));
    Ok(found)
}
