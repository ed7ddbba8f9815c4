//! The partitions of a box's disk as it is delivered: boot partition, two slots. The rest is for the data partition, which a
//! box makes itself at its first boot.
//!
//! Invariant: the same lengths and names as the disk image that `image/os/disk` defines (a test holds them together).

use crate::table::{ESP, Partition, ROOT, Uuid, VERITY, halves};
use bulla_formats::update::Release;

const MIB: u64 = 1 << 20;
/// Kernel images of two slots and the boot loader, in bytes.
pub const ESP_BYTES: u64 = 384 * MIB;
/// A root.
pub const ROOT_BYTES: u64 = 448 * MIB;
/// The hashes of a root.
pub const VERITY_BYTES: u64 = 16 * MIB;
/// What `repart.d/50-data.conf` wants at least for the data.
pub const DATA_BYTES_MIN: u64 = 512 * MIB;
/// Where the first partition begins, and what is kept free behind the last one for the second copy of the table.
pub const MARGIN: u64 = MIB;
/// The name of a data partition.
pub const DATA_NAME: &str = "bulla-data";

/// Where the data partition begins, behind the two slots.
pub const DATA_START: u64 = MARGIN + ESP_BYTES + 2 * (ROOT_BYTES + VERITY_BYTES);

/// The smallest disk that a box can run on, in bytes.
pub const DISK_BYTES_MIN: u64 = DATA_START + DATA_BYTES_MIN + MARGIN;

/// The numbers that tell one installed disk from another: random, made by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// Of the disk, its boot partition, and the two partitions of the slot that is empty.
    pub uuids: [Uuid; 4],
    /// Of the boot partition's file system.
    pub volume: u32,
}

/// Boot partition, root and hashes of the first slot, and of the second.
pub fn partitions(image: Release, root_hash: &[u8; 32], ids: &Ids) -> [Partition; 5] {
    let [_, esp, other_root, other_verity] = ids.uuids;
    let (root, verity) = halves(root_hash);
    let name = format!("bulla_{image}");
    let rows = [
        ("esp".to_owned(), ESP, esp, ESP_BYTES),
        (name.clone(), ROOT, root, ROOT_BYTES),
        (format!("{name}_verity"), VERITY, verity, VERITY_BYTES),
        ("_empty".to_owned(), ROOT, other_root, ROOT_BYTES),
        ("_empty".to_owned(), VERITY, other_verity, VERITY_BYTES),
    ];
    let (mut index, mut start) = (0, MARGIN);
    rows.map(|(name, kind, uuid, bytes)| {
        let partition = Partition { index, kind: kind_bytes(kind), uuid, name, start, bytes };
        (index, start) = (index + 1, start + bytes);
        partition
    })
}

/// Whether a table is one of ours, with nothing after the two slots.
pub fn is_ours(partitions: &[Partition]) -> bool {
    let kinds: Vec<String> = partitions.iter().map(|partition| hex::encode(partition.kind)).collect();
    let named = |partition: &Partition| {
        partition.name == "esp" || partition.name == "_empty" || partition.name.starts_with("bulla_")
    };
    kinds == [ESP, ROOT, VERITY, ROOT, VERITY] && partitions.iter().all(named)
}

fn kind_bytes(kind: &str) -> Uuid {
    // The constants are 32 digits of hex, as the test sees.
    hex::decode(kind).ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_layout_is_that_of_the_disk_image() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../os");
        let value = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().to_owned()
        };
        let mut files: Vec<_> =
            fs::read_dir(folder.join("disk")).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let ids = Ids { uuids: [[1; 16], [2; 16], [3; 16], [4; 16]], volume: 0 };
        let ours = partitions(Release::parse("1.2.3").unwrap(), &[9; 32], &ids);
        assert_eq!(files.len(), ours.len());
        assert_eq!(ours[4].start + ours[4].bytes, DATA_START);
        for (file, partition) in files.iter().zip(&ours) {
            let text = fs::read_to_string(file).unwrap();
            let mebibytes = format!("{}M", partition.bytes / MIB);
            assert_eq!(value(&text, "SizeMinBytes"), mebibytes, "{}", file.display());
            assert_eq!(value(&text, "SizeMaxBytes"), mebibytes, "{}", file.display());
            let kind = match hex::encode(partition.kind).as_str() {
                ESP => "esp",
                ROOT => "root",
                VERITY => "root-verity",
                _ => "unknown",
            };
            assert_eq!(value(&text, "Type"), kind, "{}", file.display());
            let label = value(&text, "Label").replace("@VERSION@", "1.2.3");
            assert!(label == partition.name || kind == "esp", "{}: {label}", file.display());
        }
        assert!(is_ours(&ours) && !is_ours(&ours[..4]));
        let data = fs::read_to_string(folder.join("tree/usr/lib/repart.d/50-data.conf")).unwrap();
        assert_eq!(value(&data, "SizeMinBytes"), format!("{}M", DATA_BYTES_MIN / MIB));
        assert_eq!(value(&data, "Label"), DATA_NAME);
    }
}
