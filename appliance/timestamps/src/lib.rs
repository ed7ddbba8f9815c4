//! Time stamps by other people's authorities: RFC 3161 requests, replies judged as RFC 3161, 5816 and 5652 ask, and the
//! CRLs (RFC 5280) that say whether the certificates behind them were revoked. And, in [`responder`], the bytes that an
//! authority reads and writes.
//!
//! Refuses to do: read a clock, a file, a socket or a random number (time of a stamp and nonce are arguments or
//! results); read BER; believe a certificate that no pinned root vouches for; take SHA-1 in a signature or an
//! imprint.
//! Invariants: a [`TimeStamp`] exists only when every check has passed; what is refused has one [`Refusal`], with a
//! code that never changes. Bytes are judged as they came and never encoded again, so callers keep replies raw.
#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod crl;
mod der;
mod oid;
mod refusal;
mod reply;
mod request;
pub mod responder;
mod revocation;
mod signature;
mod signed_data;
mod text;
mod time;
mod tst_info;
mod verify;

pub use authority::{Authority, AuthorityError, ROOTS_MAX, certificates_in_pem};
pub use crl::{CRL_BYTES_MAX, Crl, CrlRefusal, Reason};
pub use oid::{Oid, OidError};
pub use refusal::Refusal;
pub use reply::{Failure, REPLY_BYTES_MAX, Rejection, Reply, ReplyError, Status};
pub use request::Request;
pub use revocation::{
    CRL_ADDRESSES_MAX, Revoked, Standing, Use, Vouched, Word, certificates, is_of, standing,
};
pub use verify::{Expected, TimeStamp, UNSTATED_ACCURACY_MICROS, verify};
