//! What people may ask a served hub: the same answers as the commands of the same names give with `--json`.
//!
//! Refuses to do: guess at a parameter that is not known, or stands there twice.
//! Invariant: an [`Asked`] has passed every check; what is entered in the list of queries is what is answered.

use crate::commands::find::{self, Digests, parse_digest};
use crate::dossier::{self, gather};
use crate::exit::{Exit, Failure};
use crate::hub::Hub;
use crate::order::{Query, parse_place, place_text};
use crate::people::Role;
use crate::serve::problem::Problem;
use crate::{commands, journal, timeline};
use bulla_formats::entry::Kind;
use bulla_formats::report::utc_millis;
use bulla_protocol::gossip::merge::Place;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// Most entries of a page.
pub const LIMIT_MAX: u64 = 1_000;

/// A query.
#[derive(Debug, Clone)]
pub enum Asked {
    /// How far logs are archived.
    Status,
    /// What was found, from a number on.
    Findings(u64, usize),
    /// Seals of a document, or entries of all logs.
    Find(Box<Find>),
    /// What the archive knows of a document.
    Statement(Digests, bool),
    /// What happened to a document's seals.
    Timeline(Digests),
    /// Who asked for what, from a number on.
    Audit(u64, usize),
}

/// `find`.
#[derive(Debug, Clone, Default)]
pub struct Find {
    digests: Digests,
    branch: Option<String>,
    kind: Option<Kind>,
    from: Option<u64>,
    to: Option<u64>,
    within: bool,
    limit: u64,
    after: Option<Place>,
}

/// What is sent back.
pub enum Answer {
    /// JSON.
    Json(Value),
    /// A statement for people.
    Pdf(Vec<u8>),
}

/// Percent-encoding of a query, with `+` for a space.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok().filter(|two| !two.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

struct Parameters(BTreeMap<String, String>);

impl Parameters {
    fn parse(text: &str) -> Result<Self, Problem> {
        let mut all = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(Problem::invalid("the query is not percent-encoded UTF-8"));
            };
            if all.insert(name.clone(), value).is_some() {
                return Err(Problem::invalid(format!("{name:?} stands there twice")));
            }
        }
        Ok(Parameters(all))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn number(
        &mut self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, Problem> {
        let Some(text) = self.take(name) else { return Ok(default) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = range.into_inner();
            Problem::invalid(format!("{name}: {text:?} is no number from {least} to {most}"))
        })
    }

    fn time(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        utc_millis(&text).map(Some).map_err(|error| Problem::invalid(format!("{name}: {error}")))
    }

    fn digests(&mut self) -> Result<Digests, Problem> {
        let Some(text) = self.take("digest") else { return Ok(Vec::new()) };
        let digest = parse_digest(&text);
        let words = || format!("digest: {text:?} is not sha-256:, sha-512: or sha3-256: and its hex digits");
        Ok(vec![digest.ok_or_else(|| Problem::invalid(words()))?])
    }

    fn document(&mut self) -> Result<Digests, Problem> {
        let digests = self.digests()?;
        if digests.is_empty() {
            return Err(Problem::invalid("digest is needed, e.g. digest=sha-256:9f86d081..."));
        }
        Ok(digests)
    }

    fn end(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            Some(name) => {
                Err(Problem::invalid(format!("there is no parameter {name:?} here; see docs/audit.md")))
            }
            None => Ok(()),
        }
    }
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(name: &str, parameters: &str) -> Result<Self, Problem> {
        let mut all = Parameters::parse(parameters)?;
        let page = |all: &mut Parameters| {
            let from = all.number("from", 0, 0..=u64::MAX)?;
            Ok((from, all.number("limit", 100, 1..=LIMIT_MAX)? as usize))
        };
        let asked = match name {
            "status" => Asked::Status,
            "findings" => page(&mut all).map(|(from, limit)| Asked::Findings(from, limit))?,
            "audit" => page(&mut all).map(|(from, limit)| Asked::Audit(from, limit))?,
            "timeline" => Asked::Timeline(all.document()?),
            "statement" => {
                let digests = all.document()?;
                let pdf = match all.take("form").as_deref() {
                    None | Some("json") => false,
                    Some("pdf") => true,
                    Some(other) => {
                        return Err(Problem::invalid(format!("form: {other:?} is neither json nor pdf")));
                    }
                };
                Asked::Statement(digests, pdf)
            }
            "find" => {
                let digests = all.digests()?;
                let kind = all.take("kind").map(|text| {
                    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
                    kind.ok_or_else(|| Problem::invalid(format!("kind: there is no kind {text:?}")))
                });
                let after = all.take("after").map(|text| {
                    parse_place(&text)
                        .ok_or_else(|| Problem::invalid("after: a place is LAMPORT,ORIGIN,INDEX"))
                });
                let within = match all.take("within").as_deref() {
                    None | Some("false") => false,
                    Some("true") => true,
                    Some(_) => return Err(Problem::invalid("within is true or false")),
                };
                let (kind, after) = (kind.transpose()?, after.transpose()?);
                if !digests.is_empty() && (kind.is_some() || after.is_some()) {
                    return Err(Problem::invalid(
                        "a document is found in seals, and in one answer: kind and after do not go with digest",
                    ));
                }
                Asked::Find(Box::new(Find {
                    digests,
                    branch: all.take("box"),
                    kind,
                    from: all.time("from")?,
                    to: all.time("to")?,
                    within,
                    limit: all.number("limit", 100, 1..=LIMIT_MAX)?,
                    after,
                }))
            }
            _ => {
                return Err(Problem::new(
                    super::problem::Kind::NotFound,
                    "docs/audit.md lists what can be asked",
                ));
            }
        };
        all.end()?;
        Ok(asked)
    }

    /// Who may ask.
    pub fn role(&self) -> Role {
        match self {
            Asked::Status | Asked::Findings(..) => Role::Operator,
            Asked::Find(_) | Asked::Statement(..) | Asked::Timeline(_) => Role::Auditor,
            Asked::Audit(..) => Role::Supervisor,
        }
    }

    /// As it is entered in the list of queries.
    pub fn to_json(&self) -> Value {
        match self {
            Asked::Status => json!({}),
            Asked::Findings(from, limit) | Asked::Audit(from, limit) => json!({"from": from, "limit": limit}),
            Asked::Timeline(digests) => json!({"digests": find::digest_texts(digests)}),
            Asked::Statement(digests, pdf) => {
                json!({"digests": find::digest_texts(digests), "form": if *pdf { "pdf" } else { "json" }})
            }
            Asked::Find(find) => find.to_json(),
        }
    }
}

impl Find {
    fn to_json(&self) -> Value {
        json!({
            "digests": find::digest_texts(&self.digests), "box": self.branch, "kind": self.kind.map(Kind::name),
            "fromMillis": self.from, "toMillis": self.to, "within": self.within, "limit": self.limit,
            "after": self.after.as_ref().map(place_text),
        })
    }

    fn answer(&self, hub: &Hub) -> Result<Value, Failure> {
        let query = Query {
            origin: self.branch.as_ref().map(|branch| hub.origin_of(branch)).transpose()?,
            kind: self.kind,
            from: self.from,
            to: self.to,
            within: self.within,
            after: self.after.clone(),
        };
        let (mut rows, mut next) = (Vec::new(), None);
        if self.digests.is_empty() {
            next = find::entries(hub, &query, self.limit, &mut |_, value| rows.push(value))?;
        } else {
            let mut found = Vec::new();
            for (algorithm, digest) in &self.digests {
                found.extend(hub.index.find(*algorithm, digest)?);
            }
            find::judged(hub, &query, found, &mut |_, value| rows.push(value))?;
        }
        if rows.is_empty() {
            return Err(Failure::nothing("nothing archived is like that"));
        }
        Ok(json!({"rows": rows, "next": next}))
    }
}

/// Answers what is asked of the archive and the index.
pub fn answer(hub: &Hub, asked: &Asked) -> Result<Answer, Failure> {
    let value = match asked {
        Asked::Status => {
            let boxes: Result<Vec<Value>, Failure> =
                hub.config.boxes.iter().map(|branch| Ok(commands::standing(hub, branch)?.1)).collect();
            json!({"name": hub.config.name, "boxes": boxes?})
        }
        Asked::Findings(from, limit) => {
            let all = hub.index.findings(*from)?;
            json!({"findings": all.into_iter().take(*limit).collect::<Vec<_>>()})
        }
        Asked::Find(find) => find.answer(hub)?,
        Asked::Timeline(digests) => {
            let dossier = known(hub, digests)?;
            let events = timeline::events(hub, &dossier)?;
            json!({"events": events.iter().map(timeline::Event::to_json).collect::<Vec<_>>(), "gaps": dossier.gaps})
        }
        Asked::Statement(digests, pdf) => {
            let dossier = known(hub, digests)?;
            return commands::audit::stated(hub, &dossier, None, None, |statement| {
                Ok(if *pdf {
                    Answer::Pdf(crate::statement_page::pdf(statement)?)
                } else {
                    Answer::Json(statement.to_json())
                })
            });
        }
        Asked::Audit(..) => return Err(Failure::usage("the list of queries is not in the archive")),
    };
    Ok(Answer::Json(value))
}

fn known(hub: &Hub, digests: &Digests) -> Result<dossier::Dossier, Failure> {
    let dossier = gather(hub, digests)?;
    if !dossier.items.is_empty() {
        return Ok(dossier);
    }
    Err(match dossier.gaps.first() {
        Some(gap) => Failure { exit: Exit::Nothing, message: gap.clone() },
        None => find::unsealed(digests),
    })
}

/// Who asked for what: lines of the list, found to be chained, the oldest first.
pub fn audit(state_dir: &Path, asked: &Asked) -> Result<Value, Failure> {
    let Asked::Audit(from, limit) = asked else { return Ok(Value::Null) };
    let mut lines = VecDeque::new();
    let head = journal::walk(state_dir, |line, _| {
        if line["seq"].as_u64() >= Some(*from) && lines.len() < *limit {
            lines.push_back(line);
        }
    })?;
    let head = head.map(|head| json!({"count": head.count, "hash": head.hash.to_string()}));
    Ok(json!({"queries": lines, "head": head}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_and_nothing_is_guessed() {
        let digest = format!("digest=sha-256:{}", "ab".repeat(32));
        for (name, parameters, role) in [
            ("status", "", Role::Operator),
            ("findings", "from=3&limit=5", Role::Operator),
            ("find", &digest, Role::Auditor),
            ("find", "kind=seal&from=2026-01-01T00%3A00%3A00Z&within=true&limit=1000", Role::Auditor),
            ("timeline", &digest.replace(':', "%3A"), Role::Auditor),
            ("statement", &format!("{digest}&form=pdf"), Role::Auditor),
            ("audit", "", Role::Supervisor),
        ] {
            assert_eq!(Asked::parse(name, parameters).unwrap().role(), role, "{name}?{parameters}");
        }
        for (name, parameters) in [
            ("statut", ""),
            ("status", "x=1"),
            ("findings", "from=-1"),
            ("findings", "limit=1001"),
            ("findings", "limit=0"),
            ("findings", "from=+1"),
            ("find", &format!("{digest}&kind=seal")),
            ("find", &format!("{digest}&after=1,a,1")),
            ("find", "digest=sha-256:00"),
            ("find", "kind=nothing"),
            ("find", "from=yesterday"),
            ("find", "within=perhaps"),
            ("find", "after=1"),
            ("find", "box=a&box=b"),
            ("find", "box=%zz"),
            ("find", "box=%+1"),
            ("find", "box=%ff"),
            ("find", "box=%f"),
            ("timeline", ""),
            ("statement", &format!("{digest}&form=png")),
        ] {
            assert!(Asked::parse(name, parameters).is_err(), "{name}?{parameters}");
        }
    }
}
