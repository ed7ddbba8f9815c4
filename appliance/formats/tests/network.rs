//! `tests/vectors-network/`: network settings, records of changes to them and statuses for the console that are taken, and
//! others that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test network` writes them. The
//! beginning of a file's name says what it is and what is expected.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::box_status::{Anchors, BoxStatus, Enrolling, Neighbours, Outage, Running, one_line};
use bulla_formats::checked_json::with_checksum;
use bulla_formats::entry::Kind;
use bulla_formats::network::{Field, Settings, Words};
use bulla_formats::network_record::{By, CHANGES_MAX, Change, Changes, Event};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const NOW: u64 = 1_790_000_000_000;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-network")
}

fn set(change: impl FnOnce(&mut Words)) -> Settings {
    let mut words = Settings::default().words();
    change(&mut words);
    Settings::from_words(&words).unwrap()
}

fn all_set() -> Settings {
    set(|words| {
        *words = Words {
            interface: "enp1s0".into(),
            vlan: "20".into(),
            ipv4: "10.20.30.40/24".into(),
            ipv4_gateway: "10.20.30.1".into(),
            ipv6: "2001:db8:20::40/64".into(),
            ipv6_gateway: "fe80::1".into(),
            dns: "10.20.30.53, 2001:db8:20::53".into(),
            ntp: "ntp.bank.example 10.20.30.123".into(),
        };
    })
}

/// As long as settings can be.
fn longest() -> Settings {
    let name = |letter: &str| format!("{0}.{0}", letter.repeat(49));
    set(|words| {
        *words = Words {
            interface: "enp100s100f1np1".into(),
            vlan: "4094".into(),
            ipv4: "100.100.100.100/24".into(),
            ipv4_gateway: "100.100.100.101".into(),
            ipv6: "2001:db8:1111:2222:3333:4444:5555:6666/64".into(),
            ipv6_gateway: "2001:db8:1111:2222:3333:4444:5555:6667".into(),
            dns: "2001:db8:1111:2222:3333:4444:5555:6668 2001:db8:1111:2222:3333:4444:5555:6669 2001:db8:1111:2222:3333:4444:5555:6670".into(),
            ntp: [name("a"), name("b"), name("c")].join(" "),
        };
    })
}

fn change(event: Event, by: By) -> Change {
    let before = (event != Event::Damaged).then(Settings::default);
    let detail = "confirmed at the console".to_owned();
    Change {
        number: 0,
        event,
        by,
        began_millis: NOW,
        at_millis: NOW + 60_000,
        before,
        after: all_set(),
        detail,
    }
}

fn changes(events: &[(Event, By)]) -> Changes {
    let mut changes = Changes::default();
    events.iter().for_each(|(event, by)| changes.add(change(*event, *by)));
    changes
}

fn running() -> Running {
    Running {
        condition: "sealing".to_owned(),
        why: None,
        mode: "emergency".to_owned(),
        drill: false,
        origin: "demo.bulla.test/abc/1".to_owned(),
        branch: Some("zug".to_owned()),
        ca: "ab".repeat(32),
        version: "0.1.0".to_owned(),
        uptime_seconds: 90_061,
        entries: 1_234,
        seals: 1_200,
        queued: 0,
        outage: Some(Outage { number: 3, seconds: 3_725, seals: 17 }),
        anchors: Some(Anchors { age_seconds: Some(3_800), anchored: 1_200, needed: 2 }),
        neighbours: Some(Neighbours { connected: 1, known: 2 }),
        free_bytes: Some(2_000_000_000),
        attention: vec!["Alert disk".to_owned()],
    }
}

fn enrolling() -> Enrolling {
    Enrolling {
        claim_code: "1234-5678".to_owned(),
        fingerprint: "1234-5678-9012".to_owned(),
        code: format!("bulla-enrol:{}", "cd".repeat(32)),
        fleet: "demo.bulla.test".to_owned(),
        registrar: "https://10.0.2.100:8444".to_owned(),
        tpm: "ef".repeat(32),
        progress: "Asking the registrar.".to_owned(),
    }
}

/// The file, with its object changed and its checksum made right again.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut object: Value = serde_json::from_str(file).unwrap();
    let checked = object.as_object_mut().unwrap().remove("sha256").is_some();
    change(&mut object);
    if checked { with_checksum(&format!("{object:#}")) } else { format!("{object}\n") }
}

fn all() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, file: String| assert!(all.insert(name.to_owned(), file).is_none(), "{name}");

    // What people write for a stick.
    put("written--valid--as-delivered", r#"{"bulla": "network/v1"}"#.to_owned());
    put("written--valid--all-set", format!("{:#}\n", all_set().object()));
    put("written--valid--longest", longest().to_string());
    put(
        "written--valid--nulls",
        r#"{"vlan":null,"ntp":[],"interface":null,"bulla":"network/v1","dns":null}"#.to_owned(),
    );
    let with = |members: &str| format!("{{\"bulla\": \"network/v1\", {members}}}");
    let four = |address: &str| with(&format!(r#""ipv4": {{"address": "{address}"}}"#));
    let six = |address: &str| with(&format!(r#""ipv6": {{"address": "{address}"}}"#));
    put("written--valid--point-to-point", four("10.0.0.1/31"));
    put("written--valid--ipv6-alone", with(r#""ipv4": "off""#));
    put("written--valid--ipv6-host", six("2001:db8::1/128"));
    for (name, file) in [
        ("empty", String::new()),
        ("array", "[]".to_owned()),
        ("no-version", "{}".to_owned()),
        ("version-2", r#"{"bulla": "network/v2"}"#.to_owned()),
        ("member-twice", with(r#""vlan": 1, "vlan": 2"#)),
        ("unknown-member", with(r#""proxy": "http://10.0.0.1:3128""#)),
        ("text-after-its-end", with(r#""vlan": 1"#) + "{}"),
        ("too-long", with(&format!(r#""ntp": ["{}"]"#, "a".repeat(5_000)))),
        ("interface-empty", with(r#""interface": """#)),
        ("interface-a-number", with(r#""interface": 1"#)),
        ("interface-of-16-letters", with(r#""interface": "enp100s100f1np11""#)),
        ("interface-loopback", with(r#""interface": "lo""#)),
        ("interface-a-vlan", with(r#""interface": "vlan20""#)),
        ("interface-a-path", with(r#""interface": "../eth0""#)),
        ("interface-a-pattern", with(r#""interface": "e*""#)),
        ("interface-with-a-line-feed", with(r#""interface": "eth0\nDHCP=yes""#)),
        ("vlan-0", with(r#""vlan": 0"#)),
        ("vlan-4095", with(r#""vlan": 4095"#)),
        ("vlan-65557", with(r#""vlan": 65557"#)),
        ("vlan-negative", with(r#""vlan": -1"#)),
        ("vlan-a-text", with(r#""vlan": "20""#)),
        ("vlan-a-fraction", with(r#""vlan": 20.5"#)),
        ("ipv4-null", with(r#""ipv4": null"#)),
        ("ipv4-an-array", with(r#""ipv4": ["10.0.0.1/24"]"#)),
        ("ipv4-automatic", with(r#""ipv4": "automatic""#)),
        ("ipv4-a-bare-address", with(r#""ipv4": "10.0.0.1/24""#)),
        ("ipv4-with-another-member", with(r#""ipv4": {"address": "10.0.0.1/24", "mask": 24}"#)),
        ("ipv4-without-address", with(r#""ipv4": {"gateway": "10.0.0.1"}"#)),
        ("ipv4-dhcp-as-an-address", with(r#""ipv4": {"address": "dhcp"}"#)),
        ("ipv4-without-prefix", four("10.0.0.1")),
        ("ipv4-prefix-empty", four("10.0.0.1/")),
        ("ipv4-prefix-0", four("10.0.0.1/0")),
        ("ipv4-prefix-32", four("10.0.0.1/32")),
        ("ipv4-prefix-with-a-sign", four("10.0.0.1/+24")),
        ("ipv4-prefix-as-a-mask", four("10.0.0.1/255.255.255.0")),
        ("ipv4-of-three-numbers", four("10.0.1/24")),
        ("ipv4-number-256", four("10.0.0.256/24")),
        ("ipv4-leading-zero", four("10.0.0.010/24")),
        ("ipv4-blank", four(" 10.0.0.1/24")),
        ("ipv4-is-ipv6", four("2001:db8::1/64")),
        ("ipv4-network-address", four("10.0.0.0/24")),
        ("ipv4-broadcast-address", four("10.0.0.255/24")),
        ("ipv4-zero", four("0.0.0.0/24")),
        ("ipv4-loopback", four("127.0.0.1/8")),
        ("ipv4-link-local", four("169.254.1.1/16")),
        ("ipv4-multicast", four("224.0.0.251/24")),
        ("ipv4-reserved", four("250.1.1.1/24")),
        ("ipv4-gateway-elsewhere", with(r#""ipv4": {"address": "10.0.0.2/24", "gateway": "10.0.1.1"}"#)),
        ("ipv4-gateway-itself", with(r#""ipv4": {"address": "10.0.0.2/24", "gateway": "10.0.0.2"}"#)),
        ("ipv4-gateway-broadcast", with(r#""ipv4": {"address": "10.0.0.2/24", "gateway": "10.0.0.255"}"#)),
        ("ipv4-gateway-empty", with(r#""ipv4": {"address": "10.0.0.2/24", "gateway": ""}"#)),
        ("ipv4-gateway-is-ipv6", with(r#""ipv4": {"address": "10.0.0.2/24", "gateway": "fe80::1"}"#)),
        ("ipv6-dhcp", with(r#""ipv6": "dhcp""#)),
        ("ipv6-prefix-129", six("2001:db8::1/129")),
        ("ipv6-is-ipv4", six("10.0.0.1/24")),
        ("ipv6-mapped", six("::ffff:10.0.0.1/120")),
        ("ipv6-unspecified", six("::/64")),
        ("ipv6-loopback", six("::1/128")),
        ("ipv6-link-local", six("fe80::1/64")),
        ("ipv6-multicast", six("ff02::1/64")),
        ("ipv6-with-a-zone", six("fe80::1%eth0/64")),
        (
            "ipv6-gateway-elsewhere",
            with(r#""ipv6": {"address": "2001:db8::2/64", "gateway": "2001:db8:1::1"}"#),
        ),
        ("both-off", with(r#""ipv4": "off", "ipv6": "off""#)),
        ("dns-a-text", with(r#""dns": "10.0.0.1""#)),
        ("dns-a-name", with(r#""dns": ["dns.bank.example"]"#)),
        ("dns-of-four", with(r#""dns": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]"#)),
        ("dns-twice", with(r#""dns": ["10.0.0.1", "10.0.0.1"]"#)),
        ("dns-twice-in-two-spellings", with(r#""dns": ["2001:db8::1", "2001:db8:0::1"]"#)),
        ("dns-loopback", with(r#""dns": ["127.0.0.1"]"#)),
        ("ntp-a-number", with(r#""ntp": [1]"#)),
        ("ntp-empty", with(r#""ntp": [""]"#)),
        ("ntp-of-four", with(r#""ntp": ["a.example", "b.example", "c.example", "d.example"]"#)),
        ("ntp-twice", with(r#""ntp": ["a.example", "a.example"]"#)),
        ("ntp-in-capitals", with(r#""ntp": ["NTP.bank.example"]"#)),
        ("ntp-almost-an-address", with(r#""ntp": ["10.0.0.300"]"#)),
        ("ntp-with-a-blank", with(r#""ntp": ["a.example b.example"]"#)),
        ("ntp-with-a-line-feed", with(r#""ntp": ["a.example\nDNS=10.0.0.1"]"#)),
        (
            "ntp-of-101-bytes",
            with(&format!(r#""ntp": ["{}.example"]"#, [&"a".repeat(46)[..], &"b".repeat(46)].join("."))),
        ),
        ("ntp-multicast", with(r#""ntp": ["224.0.1.1"]"#)),
    ] {
        put(&format!("written--refused--{name}"), file);
    }

    // What a box keeps.
    let kept = all_set().encode();
    put("kept--valid--as-delivered", Settings::default().encode());
    put("kept--valid--all-set", kept.clone());
    put("kept--valid--longest", longest().encode());
    for (name, file) in [
        ("empty", String::new()),
        ("cut", kept[..kept.len() - 1].to_owned()),
        ("without-checksum", format!("{:#}\n", all_set().object())),
        ("one-digit", kept.replace("10.20.30.40", "10.20.30.41")),
        ("in-one-line", with_checksum(&all_set().to_string())),
        ("members-left-out", with_checksum("{\n  \"bulla\": \"network/v1\"\n}")),
        (
            "other-spelling-of-an-address",
            changed(&kept, |object| object["dns"][1] = "2001:DB8:20::53".into()),
        ),
        ("address-of-nobody", changed(&kept, |object| object["ipv4"]["address"] = "10.20.30.255/24".into())),
        ("member-more", changed(&kept, |object| object["more"] = 1.into())),
    ] {
        put(&format!("kept--refused--{name}"), file);
    }

    // The record of changes.
    let every =
        changes(&[(Event::Changed, By::Stick), (Event::FellBack, By::Console), (Event::Damaged, By::Start)])
            .encode();
    put("changes--valid--one", changes(&[(Event::Changed, By::Console)]).encode());
    put("changes--valid--of-each-kind", every.clone());
    put(
        "changes--valid--the-last-of-many",
        changes(&[(Event::Changed, By::Console); CHANGES_MAX + 3]).encode(),
    );
    for (name, file) in [
        ("none", Changes::default().encode()),
        ("cut", every[..every.len() - 2].to_owned()),
        ("one-digit", every.replace("10.20.30.40", "10.20.30.41")),
        ("version-2", changed(&every, |object| object["bulla"] = "network-changes/v2".into())),
        ("gap", changed(&every, |object| object["changes"][2]["number"] = 4.into())),
        (
            "number-0",
            changed(&every, |object| {
                for (at, change) in object["changes"].as_array_mut().unwrap().iter_mut().enumerate() {
                    change["number"] = at.into();
                }
            }),
        ),
        ("unknown-event", changed(&every, |object| object["changes"][0]["event"] = "tried".into())),
        ("unknown-person", changed(&every, |object| object["changes"][0]["by"] = "network".into())),
        (
            "ended-before-it-began",
            changed(&every, |object| object["changes"][0]["beganMillis"] = (NOW + 60_001).into()),
        ),
        (
            "time-above-the-limit",
            changed(&every, |object| object["changes"][0]["atMillis"] = (1_u64 << 63).into()),
        ),
        ("detail-of-two-lines", changed(&every, |object| object["changes"][0]["detail"] = "a\nb".into())),
        (
            "detail-of-201-bytes",
            changed(&every, |object| object["changes"][0]["detail"] = "d".repeat(201).into()),
        ),
        ("settings-of-nobody", changed(&every, |object| object["changes"][0]["after"]["vlan"] = 0.into())),
        ("changed-from-nothing", changed(&every, |object| object["changes"][0]["before"] = Value::Null)),
        (
            "damaged-and-known",
            changed(&every, |object| object["changes"][2]["before"] = Settings::default().object()),
        ),
        ("member-more", changed(&every, |object| object["changes"][0]["more"] = 1.into())),
        (
            "too-many",
            changed(&every, |object| {
                let one = object["changes"][0].clone();
                let many = (1..=CHANGES_MAX + 1).map(|number| {
                    let mut change = one.clone();
                    change["number"] = number.into();
                    change
                });
                object["changes"] = many.collect();
            }),
        ),
    ] {
        put(&format!("changes--refused--{name}"), file);
    }

    // Statuses.
    let runs = BoxStatus::running(12_345, running()).encode();
    let asks = BoxStatus::enrolling(12_345, enrolling()).encode();
    put("status--valid--running", runs.clone());
    put("status--valid--enrolling", asks.clone());
    let bare = Running {
        outage: None,
        anchors: None,
        neighbours: None,
        free_bytes: None,
        branch: None,
        ..running()
    };
    put("status--valid--a-bare-box", BoxStatus::running(0, bare).encode());
    for (name, file) in [
        ("empty", String::new()),
        ("cut", runs[..runs.len() / 2].to_owned()),
        ("without-line-feed", runs.trim_end().to_owned()),
        ("neither", changed(&runs, |object| object["running"] = Value::Null)),
        (
            "both",
            changed(&runs, |object| {
                object["enrolling"] = serde_json::from_str::<Value>(&asks).unwrap()["enrolling"].clone();
            }),
        ),
        ("version-2", changed(&runs, |object| object["bulla"] = "box-status/v2".into())),
        ("member-more", changed(&runs, |object| object["running"]["more"] = 1.into())),
        (
            "member-missing",
            changed(&runs, |object| drop(object["running"].as_object_mut().unwrap().shift_remove("ca"))),
        ),
        (
            "an-array",
            changed(&runs, |object| {
                let anchors: Vec<Value> =
                    object["running"]["anchors"].as_object().unwrap().values().cloned().collect();
                object["running"]["anchors"] = anchors.into();
            }),
        ),
        ("negative", changed(&runs, |object| object["running"]["entries"] = (-1).into())),
        ("escape-of-a-terminal", changed(&runs, |object| object["running"]["why"] = "\u{1b}[2J".into())),
        ("c1-control", changed(&runs, |object| object["running"]["branch"] = "\u{9b}2J".into())),
        ("line-feed", changed(&asks, |object| object["enrolling"]["progress"] = "a\nb".into())),
        ("text-of-301-bytes", changed(&runs, |object| object["running"]["origin"] = "o".repeat(301).into())),
        ("nine-reasons", changed(&runs, |object| object["running"]["attention"] = vec!["a"; 9].into())),
        (
            "too-long",
            changed(&runs, |object| object["running"]["attention"] = vec!["a".repeat(20_000); 1].into()),
        ),
    ] {
        put(&format!("status--refused--{name}"), file);
    }
    all
}

fn is_taken(name: &str, file: &[u8]) -> bool {
    match name.split("--").next().unwrap() {
        "written" => Settings::parse_written(file).is_ok(),
        "kept" => Settings::parse(file).is_ok(),
        "changes" => Changes::parse(file).is_some(),
        _ => BoxStatus::parse(file).is_some(),
    }
}

#[test]
fn every_file_is_judged_as_its_name_says() {
    let made: BTreeMap<String, Value> =
        all().into_iter().map(|(name, file)| (name, json!({ "file": file }))).collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, vector) in &made {
            fs::write(directory().join(format!("{name}.json")), format!("{vector:#}\n")).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for file in fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let taken = is_taken(&name, vector["file"].as_str().unwrap().as_bytes());
        assert_eq!(taken, name.contains("--valid--"), "{name}");
        read.insert(name, vector);
    }
    assert_eq!(read, made, "the files are what this source makes");
    let valid = read.keys().filter(|name| name.contains("--valid--")).count();
    assert!(read.len() > 3 * valid, "refusals outnumber what is taken");
}

#[test]
fn every_bit_of_what_a_box_keeps_counts() {
    for (name, file) in all().into_iter().filter(|(name, _)| {
        name.contains("--valid--") && (name.starts_with("kept") || name.starts_with("changes--valid--one"))
    }) {
        for at in 0..file.len() {
            let mut bytes = file.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(!is_taken(&name, &bytes), "{name}, byte {at}");
        }
    }
}

#[test]
fn words_and_settings_are_the_same_thing() {
    for settings in [Settings::default(), all_set(), longest()] {
        assert_eq!(Settings::from_words(&settings.words()), Ok(settings.clone()));
        assert_eq!(Settings::from_object(&settings.object()), Ok(settings));
    }
    let fault = |change: fn(&mut Words)| {
        let mut words = all_set().words();
        change(&mut words);
        Settings::from_words(&words).unwrap_err()
    };
    let found = fault(|words| words.ipv4 = "10.20.30.40".into());
    assert_eq!(
        (found.field, &found.sentence[..]),
        (Field::Ipv4, "IPv4 address: write it with its prefix, as in 10.20.30.40/24.")
    );
    let found = fault(|words| words.ipv4_gateway = "10.20.31.1".into());
    assert_eq!(found.field, Field::Ipv4Gateway);
    assert_eq!(
        found.sentence,
        "The gateway 10.20.31.1 cannot be reached from 10.20.30.40/24: it must be in that network."
    );
    assert_eq!(fault(|words| words.vlan = "x".into()).field, Field::Vlan);
    assert_eq!(fault(|words| words.ipv4 = "dhcp".into()).field, Field::Ipv4Gateway);
    assert_eq!(fault(|words| words.ntp = "10.1.1.300".into()).field, Field::Ntp);
    assert_eq!(fault(|words| words.dns = "dns.example".into()).field, Field::Dns);
    assert_eq!(fault(|words| words.interface = "vlan20".into()).field, Field::Interface);
    let remarks = set(|words| (words.ipv4, words.ipv6) = ("10.0.0.2/24".into(), "off".into())).remarks();
    assert_eq!(remarks.len(), 3, "{remarks:?}");
}

#[test]
fn every_change_makes_an_entry_that_its_readers_take() {
    for after in [all_set(), longest()] {
        for event in [Event::Changed, Event::FellBack, Event::Damaged] {
            let mut change = change(event, By::Console);
            (change.number, change.after, change.detail) = (u64::MAX >> 1, after.clone(), "d".repeat(200));
            change.before = change.before.map(|_| after.clone());
            let (kind, body) = change.entry();
            let said = match kind {
                Kind::OperatorAction => {
                    let action = OperatorActionBody::decode(&body).unwrap();
                    assert_eq!(action.action, "network-change");
                    assert_eq!(action.parameters[4].value, after.to_string());
                    assert!(action.approvals.is_empty());
                    action.reason
                }
                Kind::Incident => {
                    let incident = IncidentBody::decode(&body).unwrap();
                    assert!(["network-fell-back", "network-settings-damaged"].contains(&&incident.code[..]));
                    assert_eq!(incident.began.unix_millis, NOW);
                    incident.detail
                }
                other => panic!("{other:?}"),
            };
            assert!(said.contains(&"d".repeat(200)), "{said}");
        }
    }
}

#[test]
fn texts_of_programs_become_lines_that_a_terminal_only_shows() {
    assert_eq!(one_line("no\u{1b}[2J\u{7f}\u{9b}\n news"), "no [2J    news");
    assert_eq!(one_line(&"ä".repeat(200)).len(), 300);
    let status = BoxStatus::running(1, Running { why: Some(one_line("\u{1b}c")), ..running() });
    assert_eq!(BoxStatus::parse(status.encode().as_bytes()), Some(status));
}
