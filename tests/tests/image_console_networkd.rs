//! What the console writes is what systemd-networkd does: the real one, in a network, a tree of mounts and on a message bus of
//! its own, with a cable that ends in a test.
//!
//! Method: `unshare` makes the spaces; `/run/systemd`, `/var/lib/bulla-conf` and `/sys` are the test's in there, so the console
//! runs with its own paths, and `networkctl` and `ip` are the real ones. That the kernel makes a VLAN's interface is shown where
//! it can: some kernels of test machines have none. Needs root, `dbus-daemon` and systemd-networkd, and
//! fails without.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_tests::rig::{console_program, netns};
use std::fs;
use std::process::Command;

/// Prints what is in force after each step, one word in front of each line. `$1` is the directory, `$2` the console.
const STEPS: &str = r#"
set -eu
dir=$1 console=$2
mount -t sysfs -o ro sysfs /sys
mkdir -p /var/lib/bulla-conf /run/systemd /run/bulla-console
for each in /run/systemd /run/bulla-console /var/lib/bulla-conf; do mount -t tmpfs -o mode=755 tmpfs $each; done
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/network
chown -R systemd-network: /run/systemd/netif
cat >$dir/bus.conf <<END
<busconfig><type>system</type><listen>unix:path=$dir/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_type="method_return"/><allow send_type="error"/><allow receive_type="method_call"/><allow receive_type="signal"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow send_destination="*" eavesdrop="true"/></policy></busconfig>
END
chmod 755 $dir
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/bus
dbus-daemon --config-file=$dir/bus.conf --nofork --nopidfile >$dir/bus.log 2>&1 &
ip link set lo up
ip link add lan0 type veth peer name far0
ip link set far0 up
ip addr add 10.20.30.1/24 dev far0
until [ -S $dir/bus ]; do sleep 0.1; done
SYSTEMD_LOG_LEVEL=info SYSTEMD_LOG_TARGET=console /lib/systemd/systemd-networkd >$dir/networkd.log 2>&1 &
tries=0
# networkctl lists links without it, too.
until busctl call org.freedesktop.network1 /org/freedesktop/network1 org.freedesktop.DBus.Peer Ping >/dev/null 2>&1; do
    sleep 0.2
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat $dir/networkd.log $dir/bus.log; exit 1; }
done
wanted() { # wanted WORD COMMAND...: until the command prints something
    word=$1
    shift
    tries=0
    until out=$("$@") && [ -n "$out" ]; do
        sleep 0.2
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { echo "$word never"; cat $dir/networkd.log; ip addr; exit 1; }
    done
    echo "$out" | sed "s/^/$word /"
}
say() { cat >$dir/network.json; "$console" take $dir/network.json >/dev/null; }

say <<END
{"bulla": "network/v1", "interface": "lan0", "ipv4": {"address": "10.20.30.40/24", "gateway": "10.20.30.1"},
 "ipv6": {"address": "2001:db8:20::40/64", "gateway": "fe80::1"}, "dns": ["10.20.30.53"], "ntp": ["ntp.bank.example"]}
END
wanted four ip -4 -oneline addr show dev lan0 to 10.20.30.40/24
wanted six ip -6 -oneline addr show dev lan0 to 2001:db8:20::40/64
wanted route ip -4 route show default
wanted route6 ip -6 route show default
wanted servers sh -c 'cat /run/systemd/netif/links/* | grep -e ^DNS= -e ^NTP='

# Where the kernel has no VLANs, cables of the same names stand for their interfaces: networkd says that they are not
# what they should be, and does everything else. It has to have heard of the cable before it reads the settings: news of a
# link whose kind is not its VLAN's is thrown away whole, and a link that it has not heard of yet would never be set up.
stand_in() {
    [ $vlans = yes ] && return 0
    ip link add "$1" type veth peer name "far$1"
    ip link set "far$1" up
    wanted heard sh -c "networkctl list --no-legend --no-pager | grep -w $1 | grep -v -w -e pending -e initialized" >$dir/heard
}
vlans=no
if ip link add link lan0 name probe0 type vlan id 9 2>/dev/null; then
    ip link delete probe0
    vlans=yes
fi
echo "vlans $vlans"

stand_in vlan20
say <<END
{"bulla": "network/v1", "interface": "lan0", "vlan": 20, "ipv4": {"address": "10.20.31.40/24"}, "ipv6": "off"}
END
wanted vlan ip -4 -oneline addr show dev vlan20 to 10.20.31.40/24
if [ $vlans = yes ]; then
    wanted made sh -c 'ip -details link show dev vlan20 | grep "vlan protocol.*id 20"'
else
    wanted made grep "vlan20: .* wrong KIND veth, expected vlan" $dir/networkd.log
fi
wanted bare sh -c '[ -z "$(ip -4 -oneline addr show dev lan0)" ] && echo yes'
wanted nodefault sh -c '[ -z "$(ip -4 route show default)" ] && echo yes'

stand_in vlan21
say <<END
{"bulla": "network/v1", "interface": "lan0", "vlan": 21, "ipv4": {"address": "10.20.31.40/24"}, "ipv6": "off"}
END
wanted other ip -4 -oneline addr show dev vlan21 to 10.20.31.40/24
wanted gone sh -c '[ ! -e /sys/class/net/vlan20 ] && echo yes'

# Back to one without a VLAN, and nothing of it stays.
say <<END
{"bulla": "network/v1", "interface": "lan0", "ipv4": {"address": "10.20.30.41/24"}, "ipv6": "off"}
END
wanted back ip -4 -oneline addr show dev lan0 to 10.20.30.41/24
wanted gone21 sh -c '[ ! -e /sys/class/net/vlan21 ] && echo yes'
grep -i -e 'unknown \(key\|section\|lvalue\)' -e "failed to parse" -e ignoring $dir/networkd.log | grep -v 'Could not process new link message' | sed 's/^/complaint /' || true
"#;

#[test]
fn systemd_networkd_does_what_the_settings_say() -> Result<()> {
    netns::demand_root()?;
    let directory = tempfile::Builder::new().prefix("bulla-networkd-").tempdir()?;
    let script = directory.path().join("steps");
    fs::write(&script, STEPS)?;
    let ran = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "slave",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
        ])
        .arg(&script)
        .arg(directory.path())
        .arg(console_program()?)
        .output()
        .context("cannot start unshare (util-linux)")?;
    let said = String::from_utf8_lossy(&[&ran.stdout[..], &ran.stderr].concat()).into_owned();
    ensure!(ran.status.success(), "{said}");
    let line = |word: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(&format!("{word} ")));
        found.map(str::to_owned).with_context(|| format!("no {word} in\n{said}"))
    };
    ensure!(line("route")?.contains("via 10.20.30.1 dev lan0"), "{said}");
    ensure!(line("route6")?.contains("via fe80::1 dev lan0"), "{said}");
    let servers: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("servers ")).collect();
    assert_eq!(servers, ["DNS=10.20.30.53", "NTP=ntp.bank.example"]);
    for word in
        ["four", "six", "vlans", "vlan", "made", "bare", "nodefault", "other", "gone", "back", "gone21"]
    {
        line(word)?;
    }
    ensure!(!said.contains("complaint "), "{said}");
    Ok(())
}
