//! `bulla log`: the entries of all logs that a box holds, its own and its neighbours', in one order.
//!
//! Refuses to do: show a line that is not what its entry's bytes say, or an order that is not the one it says it is.
//! Invariants: a cursor file names what was printed and nothing more; a line that came late says so.

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{self, printable};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::leaf_hash;
use bulla_formats::json;
use bulla_formats::report::utc;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_BYTES_MAX: usize = 1 << 20;
const CURSOR_BYTES_MAX: usize = 64 << 10;

/// Arguments of `bulla log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Go on after this: the cursor that an earlier call printed
    #[arg(long, value_name = "CURSOR", conflicts_with = "cursor_file")]
    after: Option<String>,
    /// Go on where this file says, and write into it where this call stopped
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
    /// Only these logs, up to these sizes: ORIGIN:ENTRIES,...
    #[arg(long, value_name = "CURSOR")]
    to: Option<String>,
    /// Stop after so many entries [default: all there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    connection: BoxOptions,
    /// Print the box's own lines, each page with its first and last one
    #[arg(long)]
    json: bool,
}

/// Most entries asked for at a time.
const PAGE_ENTRIES: u64 = 1_000;

/// What the lines so far say.
#[derive(Default)]
struct Order {
    /// Index that comes next, of logs that were met.
    next: BTreeMap<String, u64>,
    /// Place of the newest line.
    last: Option<(u64, String, u64)>,
}

/// Prints page after page.
pub fn run(args: &LogArgs) -> Result<Exit, Failure> {
    let client = BoxClient::new(&args.connection)?;
    let mut cursor = match &args.cursor_file {
        Some(path) => read_cursor(path)?,
        None => args.after.clone().unwrap_or_default(),
    };
    let to = args.to.as_ref().map(|to| format!("&to={}", encode(to))).unwrap_or_default();
    let (mut left, mut order) = (args.limit.unwrap_or(u64::MAX), Order::default());
    loop {
        let path = format!("/v1/reconciled?limit={}{to}&after={}", left.min(PAGE_ENTRIES), encode(&cursor));
        let page = client.get(&path, "application/jsonl").map_err(|error| error.into_failure("log"))?;
        let page = String::from_utf8(page.body).map_err(|_| refused("the answer is no text"))?;
        let lines: Vec<&str> = page.lines().collect();
        let (Some(first), Some(last), true) = (lines.first(), lines.last(), lines.len() >= 2) else {
            return Err(refused("the answer has no beginning or no end"));
        };
        let (head, end) = (parse(first)?, parse(last)?);
        if head["reconciled"] != "v1" || end["next"].as_str().is_none() {
            return Err(refused("the answer is no page of a reconciled view that this program knows"));
        }
        let mut printed = String::new();
        for text in &lines[1..lines.len() - 1] {
            let line = order.check(&parse(text)?)?;
            printed.push_str(&line);
            printed.push('\n');
        }
        output::print(if args.json { &page } else { &printed });
        let count = lines.len() as u64 - 2;
        cursor = end["next"].as_str().unwrap_or_default().to_owned();
        left = left.saturating_sub(count);
        if let Some(path) = &args.cursor_file {
            files::write_atomically(path, format!("{cursor}\n").as_bytes(), true).map_err(|error| {
                Failure::usage(format!("the cursor cannot be written to {}: {error}", path.display()))
            })?;
        }
        if end["more"] != true || left == 0 || count == 0 {
            tell(args, &head, &cursor);
            return Ok(Exit::Ok);
        }
    }
}

/// What the lines do not say: logs that end here, and where to go on.
fn tell(args: &LogArgs, head: &Value, cursor: &str) {
    for log in head["logs"].as_array().into_iter().flatten().filter(|log| log["frozen"] == true) {
        let origin = printable(log["origin"].as_str().unwrap_or("?"));
        output::complain(&format!(
            "{origin} has forked: its copy is frozen, docs/runbooks/peers.md says more"
        ));
    }
    let stable = head["stable"].as_u64().unwrap_or(0);
    output::complain(&format!("nothing comes between these any more up to Lamport time {stable}"));
    if args.cursor_file.is_none() && !cursor.is_empty() {
        output::complain(&format!("go on later with --after {cursor}"));
    }
}

impl Order {
    /// Holds a line against its entry and its place; what to print for people.
    fn check(&mut self, line: &Value) -> Result<String, Failure> {
        let origin = line["origin"].as_str().ok_or_else(|| refused("a line names no log"))?.to_owned();
        let index = line["index"].as_u64().ok_or_else(|| refused("a line names no index"))?;
        let of = format!("entry {index} of {}", printable(&origin));
        if self.next.get(&origin).is_some_and(|next| *next != index) {
            return Err(refused(&format!("{of} is not the next one of its log")));
        }
        self.next.insert(origin.clone(), index + 1);
        let (late, lamport) = (line["late"] == true, line["lamport"].as_u64());
        if let Some(lamport) = lamport {
            let place = (lamport, origin.clone(), index);
            if !late && self.last.as_ref().is_some_and(|last| place < *last) {
                return Err(refused(&format!("{of} stands where it does not belong")));
            }
            self.last = self.last.take().max(Some(place));
        }
        let (mut time, mut kind) = ("?".to_owned(), "?".to_owned());
        if line["unreadable"] == true {
            kind = "unreadable".to_owned();
        } else {
            let bytes = line["entry"].as_str().and_then(|text| json::base64_decode(text).ok());
            let bytes = bytes.ok_or_else(|| refused(&format!("{of} has no bytes")))?;
            let entry = Entry::decode(&bytes).ok();
            let said = entry.as_ref().map(|entry| entry.content().lamport);
            let named = entry.as_ref().and_then(Entry::kind).map(Kind::name);
            if line["leafHash"] != leaf_hash(&bytes).to_string()
                || lamport != said
                || line["kind"].as_str() != named
            {
                return Err(refused(&format!("{of} is not what its line says")));
            }
            if let Some(entry) = &entry {
                time = utc(entry.content().time.unix_millis);
                kind = named.map_or_else(|| format!("kind {}", entry.content().kind), str::to_owned);
            }
        }
        let lamport = lamport.map_or_else(|| "?".to_owned(), |time| time.to_string());
        let mut shown = format!("{lamport:>8}  {time}  {}#{index}  {kind}", printable(&origin));
        if let Some(digest) = line["digest"].as_str() {
            shown.push_str(&format!("  {}", printable(digest)));
        }
        if let (Some(first), Some(at)) = (line["again"]["origin"].as_str(), line["again"]["index"].as_u64()) {
            shown.push_str(&format!("  [sealed before: {}#{at}]", printable(first)));
        }
        if late {
            shown.push_str("  [late]");
        }
        Ok(shown)
    }
}

fn parse(line: &str) -> Result<Value, Failure> {
    json::parse(line.as_bytes(), LINE_BYTES_MAX)
        .map_err(|error| refused(&format!("a line is no JSON ({error})")))
}

fn refused(what: &str) -> Failure {
    let message =
        format!("log: {what}; check that --box names a Bulla box of this version, and ask another box");
    Failure::new(Exit::Refused, message)
}

fn read_cursor(path: &Path) -> Result<String, Failure> {
    if !fs::exists(path).unwrap_or(true) {
        return Ok(String::new());
    }
    let unusable =
        |why: String| Failure::usage(format!("{} cannot be used as a cursor file: {why}", path.display()));
    let bytes = files::read_limited(path, CURSOR_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unusable("it is no text".to_owned()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Percent-encodes what a cursor has none of, should a file hold it.
fn encode(cursor: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte);
    let each = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    cursor.bytes().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::entry::{EntryContent, LocalTime, Mode, Residency, TreeState};
    use bulla_formats::hash::empty_root;
    use serde_json::json;

    fn line(origin: &str, index: u64, lamport: u64) -> Value {
        let content = EntryContent {
            version: 1,
            index,
            lamport,
            time: LocalTime { unix_millis: 1_800_000_000_000, uncertainty_millis: None },
            mode: Mode::Online,
            drill: false,
            epoch: 0,
            residency: Residency::Software,
            previous: TreeState::new(0, empty_root()),
            evidence: None,
            kind: Kind::SelfTest as u16,
            body: b"body".to_vec().into(),
        };
        let entry = Entry::assemble(content, vec![0x5a; 64]).unwrap();
        json!({
            "origin": origin, "index": index, "lamport": lamport, "kind": "self-test",
            "leafHash": entry.leaf_hash().to_string(), "entry": json::base64_encode(entry.bytes()),
        })
    }

    fn changed(line: &Value, member: &str, value: Value) -> Value {
        let mut changed = line.clone();
        changed[member] = value;
        changed
    }

    #[test]
    fn a_line_is_shown_when_its_entry_and_its_place_say_so() {
        let mut order = Order::default();
        let first = order.check(&line("a", 0, 3)).unwrap();
        assert!(first.contains("  a#0  self-test") && first.trim_start().starts_with('3'), "{first}");
        order.check(&line("b", 7, 3)).unwrap();
        order.check(&line("a", 1, 4)).unwrap();
        let late = changed(&line("c", 0, 1), "late", true.into());
        assert!(order.check(&late).unwrap().ends_with("  [late]"));
        let twice = changed(&line("b", 8, 9), "again", json!({"origin": "a", "index": 1}));
        assert!(order.check(&twice).unwrap().contains("[sealed before: a#1]"));
        let lost = json!({"origin": "b", "index": 9, "lamport": null, "unreadable": true});
        assert!(order.check(&lost).unwrap().ends_with("b#9  unreadable"));
    }

    #[test]
    fn a_box_that_says_something_else_than_its_entries_is_not_believed() {
        let genuine = line("b", 4, 10);
        for (what, wrong) in [
            ("another leaf", changed(&genuine, "leafHash", "00".repeat(32).into())),
            ("another time", changed(&genuine, "lamport", 11.into())),
            ("no time", changed(&genuine, "lamport", Value::Null)),
            ("another kind", changed(&genuine, "kind", "seal".into())),
            ("no bytes", changed(&genuine, "entry", Value::Null)),
            ("no base64", changed(&genuine, "entry", "*".into())),
            ("no index", changed(&genuine, "index", Value::Null)),
            ("no log", changed(&genuine, "origin", Value::Null)),
            ("an index left out", line("b", 5, 12)),
            ("an index again", line("b", 3, 12)),
            ("out of order", line("a", 0, 8)),
            ("out of order within a time", line("a", 0, 9)),
        ] {
            let mut order = Order::default();
            order.check(&line("b", 3, 9)).unwrap();
            assert!(order.check(&wrong).is_err(), "{what}");
            let mut order = Order::default();
            order.check(&line("b", 3, 9)).unwrap();
            order.check(&genuine).unwrap();
        }
    }
}
