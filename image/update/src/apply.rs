//! An update is taken: from the bundle into the slot that does not run.
//!
//! Order of the steps, each on the disk before the next:
//! 1. the kernel image of the other slot goes, so nothing starts from it while it is overwritten;
//! 2. root and hashes are written into it;
//! 3. it gets its names in the partition table, by which the new kernel image will find it;
//! 4. the new kernel image is written under a name that nothing starts;
//! 5. the record says that there is an update;
//! 6. the kernel image gets its final name. From here on, and not before, the new image starts.
//!
//! Refuses: everything that [`crate`] names, before step 1.
//! Invariant: until step 6 the machine starts what it started before; taking the same bundle again begins anew.

use crate::bundle::Bundle;
use crate::machine::Machine;
use crate::settle::write_record;
use crate::table::Table;
use anyhow::{Context, Result, ensure};
use bulla_formats::update::Release;
use bulla_formats::update_record::UpdateRecord;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

/// Room that is left on the boot partition beside a kernel image, in bytes.
const ESP_RESERVE: u64 = 4 << 20;

/// Takes the bundle; gives the release that starts next. `go_on` is asked before every change of the disk and may end it
/// there, as a power cut would.
///
/// # Errors
/// The bundle is refused, or the disk fails. The machine starts what it started before.
pub fn apply(
    machine: &Machine,
    bundle: &mut Bundle,
    now_millis: u64,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<Release> {
    let content = bundle.update().content().clone();
    bundle.update().admit(&machine.target, machine.running, machine.floor)?;
    let running = machine.esp.image(machine.running)?;
    let running = running.context("the kernel image that runs is not on the boot partition")?;
    ensure!(
        running.tries_left.is_none(),
        "the image {} that runs has not proven itself yet, and the other slot is the way back: wait until its check has passed",
        machine.running
    );
    let disk = File::options().read(true).write(true).open(&machine.disk);
    let disk = disk.with_context(|| format!("cannot open the disk {}", machine.disk.display()))?;
    let mut table = Table::read(&disk, machine.disk_bytes()?)?;
    let (_, spare) = table.slots(&machine.root_hash)?;
    let fits = content.root.bytes <= spare.root.bytes && content.verity.bytes <= spare.verity.bytes;
    ensure!(fits, "the image {} is larger than the slots of this disk", content.image);
    bundle.check_parts()?;

    machine.esp.keep_only(machine.running, go_on)?;
    let room = machine.esp.free()?;
    ensure!(
        room >= content.kernel.bytes + ESP_RESERVE,
        "the boot partition has {room} bytes left, too few for the kernel image"
    );
    for (part, partition) in [(0, &spare.root), (1, &spare.verity)] {
        let mut at = partition.start;
        bundle.read_part(part, |piece| {
            go_on()?;
            disk.write_all_at(piece, at).context("the spare slot cannot be written")?;
            at += piece.len() as u64;
            Ok(())
        })?;
    }
    go_on()?;
    disk.sync_data().context("the spare slot is not on the disk")?;
    table.name_slot(&spare, &content.root_hash, &format!("bulla_{}", content.image))?;
    table.write(&disk, go_on)?;
    machine.esp.begin(|file| {
        bundle.read_part(2, |piece| {
            go_on()?;
            Ok(file.write_all(piece)?)
        })
    })?;
    let record = UpdateRecord {
        from: machine.running,
        to: content.image,
        statement: bundle.statement(),
        staged_millis: now_millis,
        outcome: None,
        detail: String::new(),
    };
    go_on()?;
    write_record(&machine.record, &record)?;
    go_on()?;
    machine.esp.finish(content.image)?;
    Ok(content.image)
}
