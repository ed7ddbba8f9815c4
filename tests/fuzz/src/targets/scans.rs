//! Files as scanners leave them in a folder, and the receipts that lie beside them.
//!
//! Holds: a judgement comes, whatever the bytes; what is whole stays whole with zeros behind it; of a whole file of a known
//! format neither nothing nor only the first half is whole under the same name unless its own end says so; a receipt that
//! is read is written back to the same one.

use crate::targets::{seed, split};
use bulla_intake::complete::{Format, Verdict, judge};
use bulla_intake::results::Receipt;

const EXTENSIONS: [&str; 6] = ["pdf", "tif", "jpg", "png", "txt", ""];

/// The first byte chooses the extension of the file, or a receipt.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, EXTENSIONS.len() as u8 + 1) else { return };
    let Some(extension) = EXTENSIONS.get(usize::from(choice)) else {
        if let Some(receipt) = Receipt::decode(data) {
            let again = serde_json::to_vec(&receipt).expect("it was read");
            assert_eq!(Receipt::decode(&again), Some(receipt));
        }
        return;
    };
    let verdict = judge(data, extension).expect("memory can be read");
    let named = Format::of_extension(extension);
    match verdict {
        Verdict::Complete(format) => {
            assert!(!data.is_empty() && (format != Format::Other || named == Format::Other));
            let padded = [data, &[0; 300]].concat();
            assert_eq!(judge(&padded[..], extension).ok(), Some(Verdict::Complete(format)), "zeros count");
            if format == Format::Png || format == Format::Jpeg {
                // Nothing behind the end is needed, so there is a last byte that is.
                let needed = (0..=data.len()).find(|length| {
                    matches!(judge(&data[..*length], extension), Ok(Verdict::Complete(found)) if found == format)
                });
                let needed = needed.filter(|_| data.len() <= 4_096);
                if let Some(needed) = needed {
                    assert!(judge(&data[..needed - 1], extension).ok() != Some(Verdict::Complete(format)));
                }
            }
        }
        Verdict::Incomplete(why) => assert!(!why.is_empty()),
    }
}

/// A whole file of each format, and half of each; a receipt.
pub fn seeds() -> Vec<Vec<u8>> {
    let pdf = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\nxref\n0 1\ntrailer\n<<>>\nstartxref\n29\n%%EOF\n".to_vec();
    let linear = b"%PDF-1.5\n1 0 obj\n<< /Linearized 1 /L 120 >>\nendobj\nxref\nstartxref\n0\n%%EOF\n2 0 obj\nxref\nstartxref\n50\n%%EOF\n";
    let mut tiff = b"II*\0\x08\0\0\0\x02\0".to_vec();
    for (tag, value) in [(273u16, 38u32), (279, 20)] {
        tiff.extend([tag.to_le_bytes(), 4u16.to_le_bytes()].concat());
        tiff.extend([1u32.to_le_bytes(), value.to_le_bytes()].concat());
    }
    tiff.extend([0; 24]);
    let mut big = b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x01".to_vec();
    big.extend(b"\x01\x11\0\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0");
    let jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x04xydata\xff\x00more\xff\xd0rest\xff\xd9".to_vec();
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\x01IHDRxcrc!\0\0\0\x02IDATyycrc!\0\0\0\0IENDcrc!".to_vec();
    let digest = "ab".repeat(32);
    let receipt = format!(
        "{{\"bulla\":\"intake-receipt/v1\",\"leafHash\":\"{digest}\",\"sidecars\":[],\"file\":{{\"name\":\"a.pdf\",\"sha256\":\
         \"{digest}\",\"stamp\":{{\"size\":1,\"modifiedNanos\":2,\"inode\":3}}}}}}"
    );
    let whole =
        [(0, pdf), (0, linear.to_vec()), (1, tiff), (1, big), (2, jpeg), (3, png), (4, b"words".to_vec())];
    let halves = whole.clone().map(|(choice, bytes)| (choice, bytes[..bytes.len() / 2].to_vec()));
    whole
        .into_iter()
        .chain(halves)
        .chain([(6, receipt.into_bytes())])
        .map(|(at, bytes)| seed(at, bytes))
        .collect()
}
