//! Network settings as systemd-networkd takes them (systemd.network(5), systemd.netdev(5)), and how it is told.
//!
//! The files come before `/etc/systemd/network/10-lan.network`, which is the network as delivered and stays for those ports
//! and boxes of which nothing is said. Time servers go the same way: systemd-timesyncd takes those of a link.
//! Refuses to do: leave a file of former settings behind.
//! Invariant: the same settings give the same files; every file's name begins with [`PREFIX`].

use crate::place::{Places, remove};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::network::{Host, Settings, Way, is_vlan_name};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// How the files' names begin: before `10-lan.network`, of which they take the place.
pub const PREFIX: &str = "05-bulla";

/// Names and contents of the files; none for a network as delivered.
pub fn files(settings: &Settings) -> Vec<(String, String)> {
    if *settings == Settings::default() {
        return Vec::new();
    }
    let port = match &settings.interface {
        Some(name) => format!("[Match]\nName={name}\n"),
        None => "[Match]\nType=ether\nKind=!*\n".to_owned(),
    };
    let mut files = Vec::new();
    let mut file = |name: &str, text: String| files.push((format!("{PREFIX}{name}"), text));
    match settings.vlan_name() {
        None => file("-2-lan.network", format!("{port}\n{}", addresses(settings))),
        Some(vlan) => {
            let id = settings.vlan.unwrap_or_default();
            file("-1-vlan.netdev", format!("[NetDev]\nName={vlan}\nKind=vlan\n\n[VLAN]\nId={id}\n"));
            file("-1-port.network", format!("{port}\n[Network]\nVLAN={vlan}\n{SILENT}"));
            file("-2-lan.network", format!("[Match]\nName={vlan}\n\n{}", addresses(settings)));
        }
    }
    if settings.interface.is_some() {
        // Whoever names a port means that the box is to be found there and nowhere else.
        file(
            "-3-others.network",
            format!("[Match]\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n{SILENT}"),
        );
    }
    files
}

/// A port without an address.
const SILENT: &str = "DHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nLLMNR=no\nMulticastDNS=no\n";

fn addresses(settings: &Settings) -> String {
    let (four, six) = (settings.ipv4 == Way::Automatic, settings.ipv6 == Way::Automatic);
    let dhcp = match (four, six) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    let word = |yes: bool| if yes { "yes" } else { "no" };
    let link_local = if settings.ipv6 == Way::Off { "no" } else { "ipv6" };
    let mut text =
        format!("[Network]\nDHCP={dhcp}\nIPv6AcceptRA={}\nLinkLocalAddressing={link_local}\n", word(six));
    text.push_str("LLMNR=no\nMulticastDNS=no\n");
    for server in settings.dns.iter().map(IpAddr::to_string) {
        let _ = writeln!(text, "DNS={server}");
    }
    for server in settings.ntp.iter().map(Host::as_str) {
        let _ = writeln!(text, "NTP={server}");
    }
    for way in [&settings.ipv4, &settings.ipv6] {
        let Way::Static(set) = way else { continue };
        let _ = write!(text, "\n[Address]\nAddress={}/{}\n", set.address, set.prefix);
        if let Some(gateway) = set.gateway {
            let _ = write!(text, "\n[Route]\nGateway={gateway}\n");
        }
    }
    // Servers that are named count alone: those that the network hands out are not asked besides.
    let mut uses = String::new();
    for (named, line) in
        [(!settings.dns.is_empty(), "UseDNS=no\n"), (!settings.ntp.is_empty(), "UseNTP=no\n")]
    {
        if named {
            uses.push_str(line);
        }
    }
    if !uses.is_empty() {
        let _ = write!(text, "\n[DHCPv4]\n{uses}\n[DHCPv6]\n{uses}");
        if !settings.dns.is_empty() {
            text.push_str("\n[IPv6AcceptRA]\nUseDNS=no\n");
        }
    }
    text
}

/// Writes the files for systemd-networkd in place of those of former settings.
///
/// # Errors
/// They cannot be written.
pub fn write(places: &Places, settings: &Settings) -> Result<()> {
    let folder = &places.networkd;
    let what = || format!("{} cannot be written", folder.display());
    fs::create_dir_all(folder).with_context(what)?;
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path())?;
        }
    }
    for (name, text) in files(settings) {
        fs::write(folder.join(name), text).with_context(what)?;
    }
    Ok(())
}

/// The machine's own ports: those with a device behind them.
pub fn ports(places: &Places) -> Vec<String> {
    let mut ports: Vec<String> = interfaces(&places.ports)
        .into_iter()
        .filter(|name| places.ports.join(name).join("device").exists())
        .collect();
    ports.sort();
    ports
}

fn interfaces(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether this machine can have these settings.
///
/// # Errors
/// One sentence on why not.
pub fn fits(places: &Places, settings: &Settings) -> Result<(), String> {
    let all = interfaces(&places.ports);
    let ports = ports(places);
    let is_set = |way: &Way| matches!(way, Way::Static(_));
    match &settings.interface {
        Some(name) if !all.contains(name) => {
            Err(format!("This machine has no port {name}; it has {}.", listed(&ports)))
        }
        None if ports.len() > 1
            && (settings.vlan.is_some() || is_set(&settings.ipv4) || is_set(&settings.ipv6)) =>
        {
            Err(format!("This machine has the ports {}: name the one that is meant.", listed(&ports)))
        }
        _ => Ok(()),
    }
}

fn listed(ports: &[String]) -> String {
    if ports.is_empty() { "none".to_owned() } else { ports.join(", ") }
}

/// Has systemd-networkd take up what [`write()`] has written.
///
/// # Errors
/// It was not told, or refused.
pub fn apply(places: &Places, settings: &Settings) -> Result<()> {
    let wanted = settings.vlan_name();
    for name in interfaces(&places.ports) {
        // networkd makes a VLAN's interface and never removes one.
        if is_vlan_name(&name) && Some(&name) != wanted.as_ref() {
            run("ip", &["link", "delete", "dev", &name])?;
        }
    }
    run("networkctl", &["reload"])?;
    let named = settings.interface.clone().into_iter().chain(ports(places));
    let mut again: Vec<String> = named.filter(|name| places.ports.join(name).exists()).collect();
    again.sort();
    again.dedup();
    if again.is_empty() {
        return Ok(());
    }
    let arguments: Vec<&str> = ["reconfigure"].into_iter().chain(again.iter().map(String::as_str)).collect();
    run("networkctl", &arguments)
}

/// Runs a program of the image.
///
/// # Errors
/// It did not start, or did not succeed; with its own last words.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.with_context(|| format!("{program} does not start"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    ensure!(!arguments.is_empty(), "{program}: {last}");
    bail!("{program} {}: {last}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::network::Words;

    fn settings(change: impl FnOnce(&mut Words)) -> Settings {
        let mut words = Settings::default().words();
        change(&mut words);
        Settings::from_words(&words).unwrap()
    }

    fn text(settings: &Settings) -> String {
        files(settings).iter().map(|(name, text)| format!("# {name}\n{text}\n")).collect()
    }

    #[test]
    fn a_network_as_delivered_needs_no_file() {
        assert!(files(&Settings::default()).is_empty());
    }

    #[test]
    fn an_address_that_is_set_takes_the_place_of_dhcp() {
        let set = settings(|words| {
            words.ipv4 = "10.20.30.40/24".into();
            words.ipv4_gateway = "10.20.30.1".into();
            words.ipv6 = "off".into();
            words.dns = "10.20.30.53".into();
            words.ntp = "ntp.bank.example".into();
        });
        let expected = "# 05-bulla-2-lan.network\n[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n\
            LinkLocalAddressing=no\nLLMNR=no\nMulticastDNS=no\nDNS=10.20.30.53\nNTP=ntp.bank.example\n\n[Address]\n\
            Address=10.20.30.40/24\n\n[Route]\nGateway=10.20.30.1\n\n[DHCPv4]\nUseDNS=no\nUseNTP=no\n\n[DHCPv6]\n\
            UseDNS=no\nUseNTP=no\n\n[IPv6AcceptRA]\nUseDNS=no\n\n";
        assert_eq!(text(&set), expected);
    }

    #[test]
    fn a_vlan_has_its_interface_and_the_port_no_address() {
        let set = settings(|words| {
            words.interface = "enp1s0".into();
            words.vlan = "20".into();
        });
        let expected = "# 05-bulla-1-vlan.netdev\n[NetDev]\nName=vlan20\nKind=vlan\n\n[VLAN]\nId=20\n\n\
            # 05-bulla-1-port.network\n[Match]\nName=enp1s0\n\n[Network]\nVLAN=vlan20\nDHCP=no\nIPv6AcceptRA=no\n\
            LinkLocalAddressing=no\nLLMNR=no\nMulticastDNS=no\n\n\
            # 05-bulla-2-lan.network\n[Match]\nName=vlan20\n\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n\
            LinkLocalAddressing=ipv6\nLLMNR=no\nMulticastDNS=no\n\n\
            # 05-bulla-3-others.network\n[Match]\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n\
            DHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nLLMNR=no\nMulticastDNS=no\n\n";
        assert_eq!(text(&set), expected);
    }

    #[test]
    fn the_files_come_before_those_of_the_image_and_the_port_before_the_others() {
        let set = settings(|words| (words.interface, words.vlan) = ("enp1s0".into(), "20".into()));
        let mut names: Vec<String> = files(&set).into_iter().map(|(name, _)| name).collect();
        names.push("10-lan.network".to_owned());
        names.sort();
        assert_eq!(
            names,
            [
                "05-bulla-1-port.network",
                "05-bulla-1-vlan.netdev",
                "05-bulla-2-lan.network",
                "05-bulla-3-others.network",
                "10-lan.network"
            ]
        );
    }
}
