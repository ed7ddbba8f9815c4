//! Versions of one document: which seal replaces which, which stand now, and where nobody can tell.
//!
//! Between two seals of different content, the first of these that says anything decides: one names the other, directly or
//! over others, as superseded; their proven intervals are disjoint; one supersedes content that the other seals too. What
//! none of them decides is a conflict, and stays one until somebody brings evidence.
//! Refuses to do: order by local clocks, by Lamport time or by who came first to the hub; let an annulled seal replace
//! anything.
//! Invariants: the outcome does not depend on the order in which seals are handed in; two seals are never ordered by
//! overlapping intervals; as long as one seal is not annulled, at least one stands or is in conflict.

use crate::gossip::merge::Place;

/// A seal, and what is proven of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<C> {
    /// Where it stands in the order of all logs; no two are alike.
    pub place: Place,
    /// What it seals; seals of equal content are copies.
    pub content: C,
    /// Proven not to be older; Unix milliseconds.
    pub not_before: Option<u64>,
    /// Proven not to be younger.
    pub not_after: Option<u64>,
    /// Places of the seals that it supersedes, by its own signed words.
    pub supersedes: Vec<Place>,
    /// Whether a seal declares it void.
    pub annulled: bool,
}

/// Why one seal counts as later than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// It names the other as superseded, directly or over others.
    Explicit,
    /// It was made after the other, by what authorities prove.
    Disjoint,
    /// It supersedes a copy of the other.
    OfCopy,
}

impl Basis {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Explicit => "supersedes",
            Basis::Disjoint => "proven-later",
            Basis::OfCopy => "supersedes-copy",
        }
    }
}

/// How two seals stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Of one content.
    Copies,
    /// The first is the later one.
    Later(Basis),
    /// The second is.
    Earlier(Basis),
    /// Nothing decides, or two things that contradict each other.
    Conflict,
}

/// How a seal stands among the versions of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No other seal replaces it.
    Current,
    /// A seal replaces it.
    Replaced {
        /// Number of that seal.
        by: usize,
        /// Why.
        basis: Basis,
    },
    /// It was declared void.
    Annulled,
    /// It may be the current one, and so may another.
    Conflict,
}

impl Standing {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Current => "current",
            Standing::Replaced { .. } => "replaced",
            Standing::Annulled => "annulled",
            Standing::Conflict => "conflict",
        }
    }
}

/// The versions of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    standings: Vec<Standing>,
    conflicts: Vec<(usize, usize)>,
}

impl Versions {
    /// How each of `claims` stands, in their order.
    pub fn of<C: PartialEq>(claims: &[Claim<C>]) -> Self {
        let table = Table::of(claims);
        let alive: Vec<usize> = (0..claims.len()).filter(|at| !claims[*at].annulled).collect();
        // Whoever comes first by place replaces, whatever order they were handed in.
        let mut by_place = alive.clone();
        by_place.sort_by(|a, b| claims[*a].place.cmp(&claims[*b].place));
        let replaced = |at: usize| {
            by_place.iter().find_map(|other| match table.between(*other, at) {
                Between::Later(basis) => Some((*other, basis)),
                _ => None,
            })
        };
        let mut standings: Vec<Standing> = (0..claims.len())
            .map(|at| match replaced(at) {
                _ if claims[at].annulled => Standing::Annulled,
                Some((by, basis)) => Standing::Replaced { by, basis },
                None => Standing::Current,
            })
            .collect();
        let top: Vec<usize> =
            alive.iter().copied().filter(|at| standings[*at] == Standing::Current).collect();
        // Everything replaced by something: what proves this and what proves that contradict each other.
        let top = if top.is_empty() { alive } else { top };
        let undecided = |a: usize, b: usize| {
            standings[a] != Standing::Current || table.between(a, b) == Between::Conflict
        };
        let mut conflicts = Vec::new();
        for (at, a) in top.iter().enumerate() {
            for b in &top[at + 1..] {
                if table.between(*a, *b) != Between::Copies && undecided(*a, *b) {
                    conflicts.push((*a, *b));
                }
            }
        }
        for (a, b) in &conflicts {
            standings[*a] = Standing::Conflict;
            standings[*b] = Standing::Conflict;
        }
        Versions { standings, conflicts }
    }

    /// How the seal of this number stands.
    pub fn standing(&self, at: usize) -> Standing {
        self.standings[at]
    }

    /// Pairs of seals of which nobody can tell which is the later.
    pub fn conflicts(&self) -> &[(usize, usize)] {
        &self.conflicts
    }

    /// Seals that stand: of one content, or there is a conflict.
    pub fn current(&self) -> impl Iterator<Item = usize> {
        (0..self.standings.len()).filter(|at| self.standings[*at] == Standing::Current)
    }
}

/// What decides between any two.
struct Table<'a, C> {
    claims: &'a [Claim<C>],
    /// `explicit[a][b]`: `a` supersedes `b`, directly or over others.
    explicit: Vec<Vec<bool>>,
}

impl<'a, C: PartialEq> Table<'a, C> {
    fn of(claims: &'a [Claim<C>]) -> Self {
        let count = claims.len();
        let mut explicit = vec![vec![false; count]; count];
        for (a, claim) in claims.iter().enumerate() {
            for (b, other) in claims.iter().enumerate() {
                explicit[a][b] = claim.supersedes.contains(&other.place);
            }
        }
        for middle in 0..count {
            for a in 0..count {
                for b in 0..count {
                    explicit[a][b] |= explicit[a][middle] && explicit[middle][b];
                }
            }
        }
        Table { claims, explicit }
    }

    fn between(&self, a: usize, b: usize) -> Between {
        let (one, other) = (&self.claims[a], &self.claims[b]);
        if one.content == other.content {
            return Between::Copies;
        }
        let after = |one: &Claim<C>, other: &Claim<C>| match (one.not_before, other.not_after) {
            (Some(begin), Some(end)) => begin > end,
            _ => false,
        };
        let copies = |content: &C, a: usize| {
            let of = |b: usize| self.claims[b].content == *content && self.explicit[a][b];
            (0..self.claims.len()).any(of)
        };
        let says = [
            (Basis::Explicit, self.explicit[a][b], self.explicit[b][a]),
            (Basis::Disjoint, after(one, other), after(other, one)),
            (Basis::OfCopy, copies(&other.content, a), copies(&one.content, b)),
        ];
        for (basis, later, earlier) in says {
            match (later, earlier) {
                (true, true) => return Between::Conflict,
                (true, false) => return Between::Later(basis),
                (false, true) => return Between::Earlier(basis),
                (false, false) => {}
            }
        }
        Between::Conflict
    }
}

/// How two seals stand to each other among `claims`.
pub fn between<C: PartialEq>(claims: &[Claim<C>], a: usize, b: usize) -> Between {
    Table::of(claims).between(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(index: u64) -> Place {
        Place { lamport: index + 1, origin: format!("bank.example/{}/1", index % 3).into(), index }
    }

    fn claim(index: u64, content: u8, after: Option<u64>, before: Option<u64>, over: &[u64]) -> Claim<u8> {
        Claim {
            place: place(index),
            content,
            not_before: after,
            not_after: before,
            supersedes: over.iter().map(|index| place(*index)).collect(),
            annulled: false,
        }
    }

    fn standings(claims: &[Claim<u8>]) -> Vec<&'static str> {
        let versions = Versions::of(claims);
        (0..claims.len()).map(|at| versions.standing(at).name()).collect()
    }

    #[test]
    fn the_words_of_a_seal_win_over_intervals() {
        // The second says that it supersedes the first, though authorities prove it older.
        let claims = [claim(0, 1, Some(50), Some(60), &[]), claim(1, 2, Some(10), Some(20), &[0])];
        assert_eq!(standings(&claims), ["replaced", "current"]);
        assert_eq!(between(&claims, 1, 0), Between::Later(Basis::Explicit));
        // Over others too.
        let chain =
            [claim(0, 1, None, None, &[]), claim(1, 2, None, None, &[0]), claim(2, 3, None, None, &[1])];
        assert_eq!(standings(&chain), ["replaced", "replaced", "current"]);
        assert_eq!(between(&chain, 0, 2), Between::Earlier(Basis::Explicit));
    }

    #[test]
    fn only_disjoint_intervals_order_two_versions() {
        let apart = [claim(0, 1, Some(10), Some(20), &[]), claim(1, 2, Some(21), None, &[])];
        assert_eq!(standings(&apart), ["replaced", "current"]);
        for other in [
            claim(1, 2, Some(20), Some(30), &[]),
            claim(1, 2, Some(5), Some(40), &[]),
            claim(1, 2, None, Some(40), &[]),
            claim(1, 2, None, None, &[]),
        ] {
            let claims = [claim(0, 1, Some(10), Some(20), &[]), other];
            assert_eq!(standings(&claims), ["conflict", "conflict"], "{claims:?}");
            assert_eq!(Versions::of(&claims).conflicts(), [(0, 1)]);
        }
    }

    #[test]
    fn two_successors_of_one_document_are_in_conflict_until_intervals_tell() {
        let claims = |second| [claim(0, 1, None, None, &[]), claim(1, 2, Some(5), Some(9), &[0]), second];
        assert_eq!(
            standings(&claims(claim(2, 3, Some(7), Some(12), &[0]))),
            ["replaced", "conflict", "conflict"]
        );
        assert_eq!(
            standings(&claims(claim(2, 3, Some(10), Some(12), &[0]))),
            ["replaced", "replaced", "current"]
        );
    }

    #[test]
    fn a_copy_goes_with_its_content_unless_it_is_proven_to_be_sealed_again() {
        let copy = |after| [claim(0, 1, None, None, &[]), claim(1, 2, Some(10), Some(20), &[0]), after];
        let overlapping = copy(claim(2, 1, Some(15), Some(30), &[]));
        assert_eq!(standings(&overlapping), ["replaced", "current", "replaced"]);
        assert_eq!(between(&overlapping, 1, 2), Between::Later(Basis::OfCopy));
        let again = copy(claim(2, 1, Some(21), Some(30), &[]));
        assert_eq!(standings(&again), ["replaced", "replaced", "current"]);
        // There and back by words: the first is superseded, its copy supersedes.
        let back = copy(claim(2, 1, None, None, &[1]));
        assert_eq!(standings(&back), ["replaced", "replaced", "current"]);
    }

    #[test]
    fn what_is_annulled_replaces_nothing() {
        let mut claims = [claim(0, 1, None, None, &[]), claim(1, 2, None, None, &[0])];
        claims[1].annulled = true;
        assert_eq!(standings(&claims), ["current", "annulled"]);
        claims[0].annulled = true;
        assert_eq!(standings(&claims), ["annulled", "annulled"]);
        assert_eq!(Versions::of(&claims).current().count(), 0);
        assert!(standings(&[]).is_empty());
    }

    #[test]
    fn what_contradicts_itself_is_a_conflict() {
        let circle = [claim(0, 1, None, None, &[1]), claim(1, 2, None, None, &[0])];
        assert_eq!(standings(&circle), ["conflict", "conflict"]);
        // Each of three is replaced by another: words in one case, intervals in the others.
        let three = [
            claim(0, 1, Some(10), Some(11), &[2]),
            claim(1, 2, Some(20), Some(21), &[]),
            claim(2, 3, Some(30), Some(31), &[]),
        ];
        assert_eq!(standings(&three), ["conflict", "conflict", "conflict"]);
    }

    fn any_claims() -> impl Strategy<Value = Vec<Claim<u8>>> {
        let bound = || proptest::option::weighted(0.7, 0u64..40);
        let one = (0u8..4, bound(), 0u64..15, any::<bool>(), prop::collection::vec(0u64..7, 0..2), 0u8..5);
        prop::collection::vec(one, 0..7).prop_map(|all| {
            let all = all.into_iter().zip(0u64..);
            let build = |((content, after, length, bounded, over, annulled), index)| {
                let over: Vec<u64> = over;
                let after: Option<u64> = after;
                // A seal can only name what is there already.
                let over: Vec<u64> = over.into_iter().filter(|other| *other < index).collect();
                let before = Some(after.unwrap_or(0) + length).filter(|_| bounded);
                Claim { annulled: annulled == 0u8, ..claim(index, content, after, before, &over) }
            };
            all.map(build).collect()
        })
    }

    proptest! {
        #[test]
        fn the_outcome_does_not_depend_on_who_comes_first(claims in any_claims(), seed in any::<u64>()) {
            let versions = Versions::of(&claims);
            let mut order: Vec<usize> = (0..claims.len()).collect();
            order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
            let shuffled: Vec<Claim<u8>> = order.iter().map(|at| claims[*at].clone()).collect();
            let again = Versions::of(&shuffled);
            for (to, from) in order.iter().enumerate() {
                let renamed = match again.standing(to) {
                    Standing::Replaced { by, basis } => Standing::Replaced { by: order[by], basis },
                    other => other,
                };
                prop_assert_eq!(renamed, versions.standing(*from));
            }
            prop_assert_eq!(again.conflicts().len(), versions.conflicts().len());
        }

        #[test]
        fn nothing_is_resolved_silently(claims in any_claims()) {
            let versions = Versions::of(&claims);
            for a in 0..claims.len() {
                for b in 0..claims.len() {
                    let (one, other) = (&claims[a], &claims[b]);
                    let says = between(&claims, a, b);
                    match (says, between(&claims, b, a)) {
                        (Between::Later(x), Between::Earlier(y)) | (Between::Earlier(x), Between::Later(y)) => {
                            prop_assert_eq!(x, y)
                        }
                        (x, y) => prop_assert_eq!(x, y),
                    }
                    if says == Between::Later(Basis::Disjoint) {
                        prop_assert!(one.not_before.unwrap() > other.not_after.unwrap());
                    }
                    // Two that stand are copies, or told as a conflict.
                    let both = |standing| versions.standing(a) == standing && versions.standing(b) == standing;
                    if both(Standing::Current) {
                        prop_assert_eq!(one.content, other.content);
                    }
                }
                match versions.standing(a) {
                    Standing::Annulled => prop_assert!(claims[a].annulled),
                    Standing::Replaced { by, .. } => prop_assert!(!claims[by].annulled && !claims[a].annulled),
                    Standing::Conflict => {
                        prop_assert!(versions.conflicts().iter().any(|(x, y)| *x == a || *y == a))
                    }
                    Standing::Current => {}
                }
            }
            let alive = claims.iter().any(|claim| !claim.annulled);
            let standing = (0..claims.len()).any(|at| {
                matches!(versions.standing(at), Standing::Current | Standing::Conflict)
            });
            prop_assert_eq!(alive, standing);
        }

        #[test]
        fn more_evidence_never_turns_an_order_round(claims in any_claims(), at in 0usize..7, by in 0u64..10) {
            prop_assume!(at < claims.len());
            let mut narrowed = claims.clone();
            let claim = &mut narrowed[at];
            claim.not_before = Some(claim.not_before.unwrap_or(0) + by).filter(|after| {
                claim.not_after.is_none_or(|before| *after <= before)
            }).or(claim.not_before);
            for a in 0..claims.len() {
                for b in 0..claims.len() {
                    if between(&claims, a, b) == Between::Later(Basis::Disjoint) {
                        prop_assert_eq!(between(&narrowed, a, b), Between::Later(Basis::Disjoint));
                    }
                }
            }
        }
    }
}
