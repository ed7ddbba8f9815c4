//! Files as scanners leave them in a folder, and the receipts that lie beside them.
//!
//! Holds: a judgement comes, whatever the bytes; what is whole stays whole with zeros behind it, and a picture with anything
//! behind its end; a name that promises a format is never enough; a receipt that is read is written back to the same one.

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
        Verdict::Complete(Format::Other) => assert!(!data.is_empty() && named == Format::Other),
        Verdict::Complete(format) => {
            let whole = |bytes: &[u8]| judge(bytes, extension).ok() == Some(Verdict::Complete(format));
            // Beyond a mebibyte of zeros nobody looks for the end of a PDF.
            assert!(data.len() > 1 << 19 || whole(&[data, &[0; 300]].concat()), "zeros behind it count");
            if matches!(format, Format::Png | Format::Jpeg) && data.len() <= 512 {
                let shortest =
                    (1..=data.len()).find(|length| whole(&data[..*length])).expect("it is whole itself");
                assert!(
                    (shortest..=data.len()).all(|length| whole(&data[..length])),
                    "what stands behind counts"
                );
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
