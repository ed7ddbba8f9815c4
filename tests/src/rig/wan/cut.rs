//! The ways in which a WAN is not there, as rules of the router.
//!
//! A refused connection is the kindest of them. What hurts is a network that takes everything and gives nothing back.

use super::far::FarSide;

/// A WAN that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are refused at once.
    Refused,
    /// Nothing comes back, not even a refusal.
    BlackHole,
    /// The cable is pulled at the router: no carrier.
    Unplugged,
    /// The resolver never answers; addresses work.
    HangingDns,
    /// Whatever is asked, a hotel's login page answers, with status 200.
    CaptivePortal,
    /// Connections are taken and nothing is ever said on them.
    Stalled,
    /// What the box sends is lost.
    RequestsLost,
    /// What is sent to the box is lost.
    RepliesLost,
    /// Connections come about and requests arrive, but answers, which are longer, are lost.
    AnswersLost,
}

impl Cut {
    /// All of them.
    pub const ALL: [Cut; 9] = [
        Cut::Refused,
        Cut::BlackHole,
        Cut::Unplugged,
        Cut::HangingDns,
        Cut::CaptivePortal,
        Cut::Stalled,
        Cut::RequestsLost,
        Cut::RepliesLost,
        Cut::AnswersLost,
    ];

    /// What the router does with what passes.
    pub(super) fn rules(self, far: &FarSide) -> String {
        let forwards = |rules: &str| {
            format!(
                "flush ruleset\ntable ip wan {{\nchain passing {{ type filter hook forward priority filter; {rules}; }}\n}}"
            )
        };
        // Whoever is on the line already is thrown off, as by a portal whose night has ended.
        let leads_to = |port: u16| {
            let to = format!("iifname in meta l4proto tcp dnat to {}:{port}", far.address());
            let nat = format!("chain leading {{ type nat hook prerouting priority dstnat; {to}; }}");
            let others = "ct status dnat accept; iifname in meta l4proto tcp reject with tcp reset";
            format!("{}\ntable ip wan {{\n{nat}\n}}", forwards(others))
        };
        match self {
            Cut::Refused => {
                forwards("iifname in meta l4proto tcp reject with tcp reset; iifname in reject; drop")
            }
            Cut::BlackHole => forwards("drop"),
            // The link does it.
            Cut::Unplugged => HEALED.to_owned(),
            Cut::HangingDns => forwards("iifname in meta l4proto { tcp, udp } th dport 53 drop"),
            Cut::CaptivePortal => leads_to(far.portal()),
            Cut::Stalled => leads_to(far.silent()),
            Cut::RequestsLost => forwards("iifname in drop"),
            Cut::RepliesLost => forwards("oifname in drop"),
            // A handshake and an acknowledgement have no data; 120 bytes leave room for options.
            Cut::AnswersLost => forwards("oifname in meta l4proto tcp ip length > 120 drop"),
        }
    }
}

/// Everything passes but what a portal had led elsewhere.
pub(super) const HEALED: &str = "flush ruleset
table ip wan {
    chain passing { type filter hook forward priority filter; ct status dnat meta l4proto tcp reject with tcp reset; }
}";
