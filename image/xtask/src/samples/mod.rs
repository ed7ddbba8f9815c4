//! The documents of the demo: what a branch scans in a day, made on the spot so that none has to be shipped.
//!
//! - Files of real formats that other programs open: PDF, PNG, TIFF.
//! - The same bytes in every run; the names in them belong to nobody.

mod pdf;
mod scan;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

pub use pdf::document as pdf;
use scan::Scan;

/// Two pages of a loan agreement.
pub const LOAN: &str = "loan-agreement.pdf";
/// A page of a passport, as PNG.
pub const PASSPORT: &str = "passport.png";
/// A signature card from a fax-like scanner, as bilevel TIFF.
pub const SIGNATURE_CARD: &str = "signature-card.tif";
/// A standing order, signed while the TPM is away.
pub const STANDING_ORDER: &str = "standing-order.pdf";
/// An account opening, posted by a scanner that speaks nothing but HTTP.
pub const ACCOUNT_OPENING: &str = "account-opening.pdf";

/// Writes all five into `directory`.
pub fn write(directory: &Path) -> Result<()> {
    let files: [(&str, Vec<u8>); 5] = [
        (LOAN, pdf::document("Loan agreement 2026-0417", &LOAN_PAGES)),
        (PASSPORT, passport().png()),
        (SIGNATURE_CARD, signature_card().tiff()),
        (STANDING_ORDER, pdf::document("Standing order 88-12", &ORDER_PAGES)),
        (ACCOUNT_OPENING, pdf::document("Account opening 5512", &ACCOUNT_PAGES)),
    ];
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

const LOAN_PAGES: [&[&str]; 2] = [
    &[
        "between Sample Savings Bank (the lender) and Erika Mustermann (the borrower)",
        "",
        "1. The lender grants a loan of EUR 25,000.00 (twenty-five thousand).",
        "2. The rate of interest is 3.40 % a year, fixed until 31 March 2031.",
        "3. The loan is paid back in 60 equal instalments, the first on 1 May 2026.",
    ],
    &[
        "4. The borrower may repay early at any time without charge.",
        "5. Changes of this agreement need the written form.",
        "",
        "Signed in two copies, 17 April 2026.",
    ],
];
const ORDER_PAGES: [&[&str]; 2] = [
    &[
        "Pay EUR 640.00 on the first of each month, beginning 1 June 2026,",
        "to Housing Cooperative Sample Street.",
    ],
    &["The order holds until it is withdrawn in writing."],
];
const ACCOUNT_PAGES: [&[&str]; 2] = [
    &[
        "Current account for Max Mustermann, opened on 17 April 2026.",
        "Proof of identity: passport, copy on file.",
    ],
    &["The general terms in the version of January 2026 were handed over."],
];

fn passport() -> Scan {
    let mut page = Scan::blank(840, 600);
    page.frame(20, 20, 800, 560);
    page.text(50, 50, 8, "PASSPORT");
    page.frame(50, 130, 220, 280);
    page.ellipse(160, 240, 60, 75);
    page.ellipse(160, 362, 85, 40);
    for (line, text) in ["TYPE P", "NAME MUSTERMANN", "GIVEN NAME ERIKA", "BORN 12.08.1964", "NO. C01X00T47"]
        .iter()
        .enumerate()
    {
        page.text(310, 140 + line * 54, 5, text);
    }
    page.text(50, 500, 5, "P-D-MUSTERMANN--ERIKA----------------");
    page
}

fn signature_card() -> Scan {
    let mut page = Scan::blank(840, 500);
    page.frame(20, 20, 800, 460);
    page.text(50, 50, 7, "SIGNATURE CARD 4711");
    page.text(50, 130, 5, "ACCOUNT 5512 - MAX MUSTERMANN");
    page.frame(50, 400, 700, 2);
    // A hand that writes loops.
    for turn in 0..9 {
        page.ellipse(120 + turn * 60, 340 - (turn % 3) * 12, 38, 22 + (turn % 4) * 9);
    }
    page.text(50, 420, 4, "SIGNED BEFORE ME: 17.04.2026");
    page
}

#[cfg(test)]
mod tests {
    use super::{passport, pdf, signature_card};

    #[test]
    fn pdf_objects_are_where_the_cross_reference_table_says() {
        let bytes = pdf::document("Title (1)", &[&["one"], &["two"]]);
        let text = String::from_utf8(bytes).unwrap();
        let table_at: usize = text.lines().rev().nth(1).unwrap().parse().unwrap();
        let table = &text[table_at..];
        assert!(table.starts_with("xref\n0 "));
        let offsets = table
            .lines()
            .skip(3)
            .take_while(|line| line.len() == 19)
            .map(|line| line[..10].parse::<usize>().unwrap());
        let mut count = 0;
        for (number, offset) in offsets.enumerate() {
            assert!(text[offset..].starts_with(&format!("{} 0 obj\n", number + 1)));
            count += 1;
        }
        assert_eq!(count, 7); // catalog, page tree, font, two pages with their contents
        assert!(text.contains(r"(Title \(1\))"));
    }

    #[test]
    fn images_carry_their_size_and_are_the_same_each_time() {
        let png = passport().png();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&png[16..24], &[0, 0, 3, 72, 0, 0, 2, 88]); // 840 x 600
        assert_eq!(png, passport().png());
        let tiff = signature_card().tiff();
        assert_eq!(&tiff[..4], b"II\x2A\x00");
        assert!(tiff.len() > 840 / 8 * 500);
    }
}
