//! Network settings of a box that runs from an image of its own (docs/formats.md, *Network settings*): the file on its data
//! partition, the file on a stick, and what must hold before either is applied.
//!
//! Refuses to do: know which ports a machine has, or apply anything.
//! Invariants: [`Settings`] that were read hold what [`Settings::check`] asks; what is kept has one spelling.

use crate::checked_json;
use crate::json;
use core::fmt::{self, Display};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde_json::{Map, Value, json};

/// Longest file in bytes.
pub const SETTINGS_BYTES_MAX: usize = 4_096;
/// Most servers of a kind.
pub const SERVERS_MAX: usize = 3;
/// Longest name of a time server in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// Longest name of a port in bytes (Linux's IFNAMSIZ less its end).
pub const INTERFACE_BYTES_MAX: usize = 15;
const VLAN_MAX: u64 = 4_094;
const VERSION: &str = "network/v1";
const MEMBERS: [&str; 7] = ["bulla", "interface", "vlan", "ipv4", "ipv6", "dns", "ntp"];

/// Which part of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the member of the same name")]
pub enum Field {
    File,
    Interface,
    Vlan,
    Ipv4,
    Ipv4Gateway,
    Ipv6,
    Ipv6Gateway,
    Dns,
    Ntp,
}

/// What is wrong, and with what: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Fault {
    /// The part that is to be changed.
    pub field: Field,
    /// For people.
    pub sentence: String,
}

fn fault<T>(field: Field, sentence: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { field, sentence: sentence.into() })
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The word for addresses that the network hands out.
    pub fn automatic(self) -> &'static str {
        match self {
            Family::V4 => "dhcp",
            Family::V6 => "automatic",
        }
    }

    fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn fields(self) -> (Field, Field) {
        match self {
            Family::V4 => (Field::Ipv4, Field::Ipv4Gateway),
            Family::V6 => (Field::Ipv6, Field::Ipv6Gateway),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Family::V4 => "10.20.30.40/24",
            Family::V6 => "2001:db8:20::40/64",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }
}

/// An address that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Static {
    /// The box's own.
    pub address: IpAddr,
    /// Bits of it that its network has in common.
    pub prefix: u8,
    /// The way to everywhere else, where there is one.
    pub gateway: Option<IpAddr>,
}

/// How a box comes by its address of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// It has none.
    Off,
    /// The network says: DHCP, router advertisements.
    Automatic,
    /// It is set.
    Static(Static),
}

impl Way {
    /// Reads `off`, the family's word for automatic, or an address with its prefix and the gateway (empty: none), as people
    /// write them.
    ///
    /// # Errors
    /// One sentence on what is wrong.
    pub fn from_words(family: Family, address: &str, gateway: &str) -> Result<Self, Fault> {
        let (at, at_gateway) = family.fields();
        let (name, example) = (family.name(), family.example());
        let way = match address {
            "off" => Way::Off,
            word if word == family.automatic() => Way::Automatic,
            text => {
                let Some((ip, prefix)) = text.split_once('/') else {
                    return fault(at, format!("{name} address: write it with its prefix, as in {example}."));
                };
                let Some(address) = ip.parse().ok().filter(|ip| family.has(ip)) else {
                    return fault(at, format!("{ip:?} is no {name} address; an example: {example}."));
                };
                let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
                let Some(prefix) = prefix.parse().ok().filter(|_| digits) else {
                    return fault(at, format!("{name} prefix: a number behind the slash, as in {example}."));
                };
                let gateway = match gateway {
                    "" => None,
                    text => match text.parse().ok().filter(|ip| family.has(ip)) {
                        Some(ip) => Some(ip),
                        None => {
                            let sentence =
                                format!("{text:?} is no {name} address; leave the gateway empty for none.");
                            return fault(at_gateway, sentence);
                        }
                    },
                };
                Way::Static(Static { address, prefix, gateway })
            }
        };
        if !gateway.is_empty() && !matches!(way, Way::Static(_)) {
            return fault(
                at_gateway,
                format!("A {name} gateway goes with an address that is set, not alone."),
            );
        }
        way.check(family)?;
        Ok(way)
    }

    fn check(&self, family: Family) -> Result<(), Fault> {
        let Way::Static(Static { address, prefix, gateway }) = self else { return Ok(()) };
        let ((at, at_gateway), name) = (family.fields(), family.name());
        let most = if family == Family::V4 { 31 } else { 128 };
        if !family.has(address) || gateway.is_some_and(|gateway| !family.has(&gateway)) {
            return fault(at, format!("{name}: address and gateway must both be {name}."));
        }
        if !(1..=most).contains(prefix) {
            return fault(at, format!("{name} prefix: from 1 to {most}, and not {prefix}."));
        }
        if let Some(what) = unusable(address) {
            return fault(at, format!("{address} is {what}, which no box can have."));
        }
        let (network, last) = span(address, *prefix, family);
        let bounds = family == Family::V4 && *prefix <= 30;
        let is_bound = |ip: &IpAddr| bounds && (number(ip) == network || number(ip) == last);
        if is_bound(address) {
            return fault(
                at,
                format!("{address} is the network's own or its broadcast address under /{prefix}."),
            );
        }
        let Some(gateway) = gateway else { return Ok(()) };
        if gateway == address {
            return fault(at_gateway, format!("The {name} gateway is the box's own address."));
        }
        let near = (network..=last).contains(&number(gateway));
        let link_local = matches!(gateway, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80);
        if !link_local && (!near || is_bound(gateway) || unusable(gateway).is_some()) {
            let sentence = format!(
                "The gateway {gateway} cannot be reached from {address}/{prefix}: it must be in that network."
            );
            return fault(at_gateway, sentence);
        }
        Ok(())
    }

    /// The words of [`Self::from_words`].
    pub fn words(&self, family: Family) -> (String, String) {
        match self {
            Way::Off => ("off".to_owned(), String::new()),
            Way::Automatic => (family.automatic().to_owned(), String::new()),
            Way::Static(set) => (
                format!("{}/{}", set.address, set.prefix),
                set.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            ),
        }
    }

    fn object(&self, family: Family) -> Value {
        let (address, gateway) = self.words(family);
        match self {
            Way::Static(_) => {
                let gateway = if gateway.is_empty() { Value::Null } else { gateway.into() };
                json!({"address": address, "gateway": gateway})
            }
            _ => address.into(),
        }
    }

    fn from_object(family: Family, value: Option<&Value>) -> Result<Self, Fault> {
        let at = family.fields().0;
        let odd = || format!("{}: \"off\", {:?}, or address and gateway.", family.name(), family.automatic());
        match value {
            None => Ok(Way::Automatic),
            Some(Value::String(word)) if word == "off" || word == family.automatic() => {
                Self::from_words(family, word, "")
            }
            Some(Value::Object(members)) => {
                let known = members.keys().all(|name| name == "address" || name == "gateway");
                let text = |name: &str| match members.get(name) {
                    None | Some(Value::Null) => Some(""),
                    Some(value) => value.as_str().filter(|text| !text.is_empty()),
                };
                match (text("address"), text("gateway")) {
                    // A word is no address here.
                    (Some(address), Some(gateway)) if known && address.contains('/') => {
                        Self::from_words(family, address, gateway)
                    }
                    _ => fault(at, odd()),
                }
            }
            Some(_) => fault(at, odd()),
        }
    }
}

/// Why an address can be nobody's.
fn unusable(address: &IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(ip) => match ip.octets() {
            [0, ..] => Some("of no network"),
            [127, ..] => Some("a loopback address"),
            [169, 254, ..] => Some("a link-local address"),
            [224..=239, ..] => Some("a multicast address"),
            [240..=255, ..] => Some("a reserved address"),
            _ => None,
        },
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            if *ip == Ipv6Addr::UNSPECIFIED {
                Some("of no network")
            } else if *ip == Ipv6Addr::LOCALHOST {
                Some("a loopback address")
            } else if first & 0xff00 == 0xff00 {
                Some("a multicast address")
            } else if first & 0xffc0 == 0xfe80 {
                Some("a link-local address")
            } else if ip.to_ipv4_mapped().is_some() {
                Some("an IPv4 address written as IPv6")
            } else {
                None
            }
        }
    }
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u32::from(*ip).into(),
        IpAddr::V6(ip) => u128::from(*ip),
    }
}

/// First and last address of the network; the prefix is from 1 to the family's bits.
fn span(address: &IpAddr, prefix: u8, family: Family) -> (u128, u128) {
    let host = u32::from(family.bits() - prefix);
    let low = 1_u128.checked_shl(host).map_or(u128::MAX, |bit| bit - 1);
    let first = number(address) & !low;
    (first, first | low)
}

/// A time server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(String);

impl Host {
    /// An address, or a name in small letters.
    pub fn new(text: &str) -> Result<Self, Fault> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return match unusable(&address) {
                None => Ok(Host(address.to_string())),
                Some(what) => fault(Field::Ntp, format!("{text} is {what}, and no time server's.")),
            };
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        // 10.1.2.300 is an address with a slip, not a name.
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.split('.').all(label)
            && last.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_name {
            Ok(Host(text.to_owned()))
        } else {
            fault(
                Field::Ntp,
                format!(
                    "{text:?} is neither an address nor a name in small letters, as in ntp.bank.example."
                ),
            )
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a box's network is to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The port; `None` is every port there is.
    pub interface: Option<String>,
    /// The VLAN on it that the box is in, 1 to 4,094; `None` is untagged.
    pub vlan: Option<u16>,
    /// IPv4.
    pub ipv4: Way,
    /// IPv6.
    pub ipv6: Way,
    /// Name servers; none means those that the network names.
    pub dns: Vec<IpAddr>,
    /// Time servers; none means those that the network names.
    pub ntp: Vec<Host>,
}

impl Default for Settings {
    /// As a box is delivered.
    fn default() -> Self {
        Settings {
            interface: None,
            vlan: None,
            ipv4: Way::Automatic,
            ipv6: Way::Automatic,
            dns: Vec::new(),
            ntp: Vec::new(),
        }
    }
}

/// Settings as people write them, a text a field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// A port's name; empty for every port.
    pub interface: String,
    /// A number; empty for none.
    pub vlan: String,
    /// `dhcp`, `off`, or an address with its prefix.
    pub ipv4: String,
    /// Empty for none.
    pub ipv4_gateway: String,
    /// `automatic`, `off`, or an address with its prefix.
    pub ipv6: String,
    /// Empty for none.
    pub ipv6_gateway: String,
    /// Addresses with blanks or commas between them.
    pub dns: String,
    /// Addresses or names with blanks or commas between them.
    pub ntp: String,
}

impl Settings {
    /// Reads what people write.
    ///
    /// # Errors
    /// The first thing that is wrong, in one sentence.
    pub fn from_words(words: &Words) -> Result<Self, Fault> {
        let list = |text: &str| -> Vec<String> {
            text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let vlan = match words.vlan.trim() {
            "" => None,
            text => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let Some(vlan) = text.parse().ok().filter(|_| digits) else {
                    return fault(
                        Field::Vlan,
                        format!("{text:?} is no VLAN: a number from 1 to {VLAN_MAX}, or nothing."),
                    );
                };
                Some(vlan)
            }
        };
        let mut dns = Vec::new();
        for word in list(&words.dns) {
            match word.parse() {
                Ok(address) => dns.push(address),
                Err(_) => {
                    return fault(
                        Field::Dns,
                        format!("{word:?} is no address; a name server has one, as in 10.20.30.1."),
                    );
                }
            }
        }
        let ntp: Result<Vec<Host>, Fault> = list(&words.ntp).iter().map(|word| Host::new(word)).collect();
        let interface = Some(words.interface.trim().to_owned()).filter(|name| !name.is_empty());
        let settings = Settings {
            interface,
            vlan,
            ipv4: Way::from_words(Family::V4, words.ipv4.trim(), words.ipv4_gateway.trim())?,
            ipv6: Way::from_words(Family::V6, words.ipv6.trim(), words.ipv6_gateway.trim())?,
            dns,
            ntp: ntp?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// The words of [`Self::from_words`].
    pub fn words(&self) -> Words {
        let ((ipv4, ipv4_gateway), (ipv6, ipv6_gateway)) =
            (self.ipv4.words(Family::V4), self.ipv6.words(Family::V6));
        let list = |each: Vec<String>| each.join(" ");
        Words {
            interface: self.interface.clone().unwrap_or_default(),
            vlan: self.vlan.map(|vlan| vlan.to_string()).unwrap_or_default(),
            ipv4,
            ipv4_gateway,
            ipv6,
            ipv6_gateway,
            dns: list(self.dns.iter().map(IpAddr::to_string).collect()),
            ntp: list(self.ntp.iter().map(|host| host.0.clone()).collect()),
        }
    }

    /// Whether a box may have these settings.
    ///
    /// # Errors
    /// The first thing that is wrong, in one sentence.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(name) = &self.interface {
            let letters =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
            let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
            if !letters || !begins || name.len() > INTERFACE_BYTES_MAX {
                return fault(Field::Interface, format!("{name:?} is no port's name; an example: enp1s0."));
            }
            if name == "lo" || is_vlan_name(name) {
                return fault(
                    Field::Interface,
                    format!("{name} is no port of the machine: name the port, as in enp1s0."),
                );
            }
        }
        if let Some(vlan) = self.vlan
            && !(1..=VLAN_MAX).contains(&vlan.into())
        {
            return fault(Field::Vlan, format!("VLAN: from 1 to {VLAN_MAX}, and not {vlan}."));
        }
        self.ipv4.check(Family::V4)?;
        self.ipv6.check(Family::V6)?;
        if self.ipv4 == Way::Off && self.ipv6 == Way::Off {
            return fault(Field::Ipv4, "IPv4 and IPv6 are both off: nobody would reach the box.");
        }
        for (field, count, what) in
            [(Field::Dns, self.dns.len(), "name"), (Field::Ntp, self.ntp.len(), "time")]
        {
            if count > SERVERS_MAX {
                return fault(field, format!("There are {count} {what} servers; {SERVERS_MAX} at most."));
            }
        }
        for (at, address) in self.dns.iter().enumerate() {
            if let Some(what) = unusable(address) {
                return fault(Field::Dns, format!("{address} is {what}, and no name server's."));
            }
            if self.dns[..at].contains(address) {
                return fault(Field::Dns, format!("The name server {address} is there twice."));
            }
        }
        for (at, host) in self.ntp.iter().enumerate() {
            Host::new(&host.0)?;
            if self.ntp[..at].contains(host) {
                return fault(Field::Ntp, format!("The time server {} is there twice.", host.0));
            }
        }
        Ok(())
    }

    /// Name of the VLAN's own interface.
    pub fn vlan_name(&self) -> Option<String> {
        self.vlan.map(|vlan| format!("vlan{vlan}"))
    }

    /// What a person should know before they agree, though nothing is wrong.
    pub fn remarks(&self) -> Vec<&'static str> {
        let automatic = self.ipv4 == Way::Automatic || self.ipv6 == Way::Automatic;
        let gateway = |way: &Way| matches!(way, Way::Static(set) if set.gateway.is_some());
        let mut remarks = Vec::new();
        if !automatic && self.dns.is_empty() {
            remarks.push("No name server: the box finds others by address only.");
        }
        if !automatic && !gateway(&self.ipv4) && !gateway(&self.ipv6) {
            remarks.push("No gateway: the box reaches its own network only.");
        }
        if !automatic && self.ntp.is_empty() {
            remarks.push("No time server: Debian's are asked, if they can be reached.");
        }
        remarks
    }

    /// The object, every member in its place.
    pub fn object(&self) -> Value {
        json!({
            "bulla": VERSION,
            "interface": self.interface,
            "vlan": self.vlan,
            "ipv4": self.ipv4.object(Family::V4),
            "ipv6": self.ipv6.object(Family::V6),
            "dns": self.dns.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "ntp": self.ntp.iter().map(Host::as_str).collect::<Vec<_>>(),
        })
    }

    /// Reads the object; members that are absent are as in [`Settings::default`].
    ///
    /// # Errors
    /// The first thing that is wrong, in one sentence.
    pub fn from_object(value: &Value) -> Result<Self, Fault> {
        let Value::Object(members) = value else { return fault(Field::File, "It is no JSON object.") };
        if members.get("bulla").and_then(Value::as_str) != Some(VERSION) {
            return fault(Field::File, format!("It has no member \"bulla\" that says {VERSION:?}."));
        }
        if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            return fault(Field::File, format!("{name:?} is no setting of the network."));
        }
        let interface = match members.get("interface") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if !name.is_empty() => Some(name.clone()),
            Some(_) => return fault(Field::Interface, "\"interface\": a port's name, or null."),
        };
        let vlan = match members.get("vlan") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64().and_then(|vlan| u16::try_from(vlan).ok()) {
                Some(vlan) => Some(vlan),
                None => {
                    return fault(Field::Vlan, format!("\"vlan\": a number from 1 to {VLAN_MAX}, or null."));
                }
            },
        };
        let mut dns = Vec::new();
        for text in texts(members, "dns", Field::Dns)? {
            match text.parse() {
                Ok(address) => dns.push(address),
                Err(_) => return fault(Field::Dns, format!("{text:?} is no address of a name server.")),
            }
        }
        let ntp: Result<Vec<Host>, Fault> =
            texts(members, "ntp", Field::Ntp)?.into_iter().map(Host::new).collect();
        let settings = Settings {
            interface,
            vlan,
            ipv4: Way::from_object(Family::V4, members.get("ipv4"))?,
            ipv6: Way::from_object(Family::V6, members.get("ipv6"))?,
            dns,
            ntp: ntp?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// The file that a box keeps.
    pub fn encode(&self) -> String {
        checked_json::with_checksum(&format!("{:#}", self.object()))
    }

    /// Reads the file that a box keeps; refuses anything but what [`Self::encode`] writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(file: &[u8]) -> Result<Self, Fault> {
        if file.len() > SETTINGS_BYTES_MAX {
            return fault(Field::File, format!("It is longer than {SETTINGS_BYTES_MAX} bytes."));
        }
        let body = checked_json::body(file)
            .map_err(|error| Fault { field: Field::File, sentence: format!("Not believed: {error}.") })?;
        let settings = Self::parse_written(&body)?;
        if settings.encode().as_bytes() == file {
            Ok(settings)
        } else {
            fault(Field::File, "It is not in the one spelling that a box writes.")
        }
    }

    /// Reads what a person has written for a stick: the object alone, in any spelling of JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_written(file: &[u8]) -> Result<Self, Fault> {
        let value = json::parse(file, SETTINGS_BYTES_MAX)
            .map_err(|error| Fault { field: Field::File, sentence: format!("Not accepted: {error}.") })?;
        Self::from_object(&value)
    }
}

impl Display for Settings {
    /// One line of JSON, as it stands in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object())
    }
}

/// Whether the box itself has made an interface of this name, for a VLAN.
pub fn is_vlan_name(name: &str) -> bool {
    let number = name.strip_prefix("vlan");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn texts<'a>(members: &'a Map<String, Value>, name: &str, field: Field) -> Result<Vec<&'a str>, Fault> {
    let list: Option<Vec<&str>> = match members.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(value) => value.as_array().and_then(|items| items.iter().map(Value::as_str).collect()),
    };
    match list {
        Some(list) => Ok(list),
        None => fault(field, format!("{name:?}: a list of texts.")),
    }
}

/// The mask that people know an IPv4 prefix by.
pub fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(prefix))).unwrap_or(0))
}
