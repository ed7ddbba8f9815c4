//! The ceiling of the benchmark: what redb alone does with group commit on this disk, for N clients that
//! each wait for their row to be durable. No TLS, no signatures, no tree, no re-reading.
//!
//! Usage: `group_commit_ceiling DIRECTORY CLIENTS SECONDS`; prints `rows/s p50_us p99_us`.

use redb::{Database, Durability, TableDefinition};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");
const HEAD: TableDefinition<u8, u64> = TableDefinition::new("head");
/// About the length of a seal entry in DER.
const ROW_BYTES: usize = 450;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, clients, seconds] = arguments.as_slice() else {
        return Err("usage: group_commit_ceiling DIRECTORY CLIENTS SECONDS".into());
    };
    let (clients, seconds): (usize, u64) = (clients.parse()?, seconds.parse()?);
    let file = std::path::Path::new(directory).join("ceiling.redb");
    let database = Database::builder().set_cache_size(64 << 20).create(&file)?;
    let (queue, requests) = sync_channel::<Sender<()>>(4_096);
    let stop = Arc::new(AtomicBool::new(false));
    let latencies = Arc::new(Mutex::new(Vec::new()));

    let writer = std::thread::spawn(move || -> Result<(), redb::Error> {
        let mut next = 0u64;
        while let Ok(first) = requests.recv() {
            let mut waiting = vec![first];
            waiting.extend(std::iter::from_fn(|| requests.try_recv().ok()).take(511));
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut rows = transaction.open_table(ROWS)?;
                for _ in &waiting {
                    rows.insert(next, [next as u8; ROW_BYTES].as_slice())?;
                    next += 1;
                }
                transaction.open_table(HEAD)?.insert(0, next)?;
            }
            transaction.commit()?;
            for reply in waiting {
                // A client that has stopped needs no answer.
                let _ = reply.send(());
            }
        }
        Ok(())
    });
    let began = Instant::now();
    let producers: Vec<_> = (0..clients)
        .map(|_| {
            let (queue, stop, latencies) = (queue.clone(), stop.clone(), latencies.clone());
            std::thread::spawn(move || {
                let mut own = Vec::new();
                while !stop.load(Relaxed) {
                    let (reply, answer) = channel();
                    let asked = Instant::now();
                    if queue.send(reply).is_err() || answer.recv().is_err() {
                        break;
                    }
                    own.push(asked.elapsed().as_micros() as u64);
                }
                latencies.lock().expect("no producer panics").append(&mut own);
            })
        })
        .collect();
    drop(queue);
    std::thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Relaxed);
    for producer in producers {
        producer.join().map_err(|_| "a producer panicked")?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    writer.join().map_err(|_| "the writer panicked")??;
    let mut latencies = std::mem::take(&mut *latencies.lock().map_err(|_| "a producer panicked")?);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!("{:.0} {} {}", latencies.len() as f64 / elapsed, at(0.5), at(0.99));
    std::fs::remove_file(file)?;
    Ok(())
}
