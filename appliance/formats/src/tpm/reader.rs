//! A cursor over big-endian TPM structures.
//!
//! Refuses: reading past the end, sized buffers outside their bounds, leftovers. Allocates nothing.

use super::TpmError;

/// Reads fields in order; every read names the field, so that a refusal does too.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], TpmError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(TpmError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TpmError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(TpmError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, TpmError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, TpmError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, TpmError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, TpmError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A TPM2B: two bytes of length, then that many bytes, at least `min` and at most `max`.
    pub(super) fn sized(
        &mut self,
        min: usize,
        max: usize,
        field: &'static str,
        allowed: &'static str,
    ) -> Result<&'a [u8], TpmError> {
        let found = usize::from(self.u16(field)?);
        if found < min || found > max {
            return Err(TpmError::Size { field, found, allowed });
        }
        self.take(found, field)
    }

    /// The structure ends here.
    pub(super) fn end(&self, field: &'static str) -> Result<(), TpmError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(TpmError::Trailing { field, bytes }),
        }
    }
}
