//! Gives tenants slots: who never lives at the same time may share one.
//!
//! A slot is a whole buffer, as large as its largest tenant. Packing lives into slots of the least total size is
//! NP-hard; greedy rules come within a few per cent of each other, and which of them wins depends on the network, so all are
//! tried and the best is kept.

use super::Tenant;
use std::cmp::Reverse;

/// A slot while tenants move in.
#[derive(Default)]
struct Slot {
    bytes: u64,
    lives: Vec<(usize, usize)>,
}

impl Slot {
    fn is_free(&self, tenant: &Tenant) -> bool {
        self.lives.iter().all(|(from, to)| tenant.to < *from || *to < tenant.from)
    }

    /// Nodes between `tenant`'s life and the nearest other one; those of an empty slot are many.
    fn gap(&self, tenant: &Tenant) -> usize {
        let gap = |(from, to): &(usize, usize)| if *to < tenant.from { tenant.from - to } else { from.saturating_sub(tenant.to) };
        self.lives.iter().map(gap).min().unwrap_or(usize::MAX)
    }
}

/// Who chooses first.
#[derive(Clone, Copy)]
enum Order {
    Largest,
    LargestTimesLongest,
    Longest,
    Earliest,
}

/// Which of the free slots that grow least.
#[derive(Clone, Copy)]
enum Choice {
    First,
    Smallest,
    TightestInTime,
}

/// Sets the slot of every tenant and returns the bytes of each slot, the largest first. The same tenants always get the same
/// slots.
pub fn place(tenants: &mut [Tenant]) -> Vec<u64> {
    let mut best: Option<(u64, Vec<usize>, Vec<Slot>)> = None;
    for order in [Order::Largest, Order::LargestTimesLongest, Order::Longest, Order::Earliest] {
        for choice in [Choice::First, Choice::Smallest, Choice::TightestInTime] {
            let (assigned, slots) = place_by(tenants, order, choice);
            let bytes = slots.iter().map(|slot| slot.bytes).sum();
            if best.as_ref().is_none_or(|(least, ..)| bytes < *least) {
                best = Some((bytes, assigned, slots));
            }
        }
    }
    let (_, assigned, slots) = best.unwrap_or_default();
    let mut by_size: Vec<usize> = (0..slots.len()).collect();
    by_size.sort_by_key(|slot| Reverse(slots[*slot].bytes));
    for (tenant, slot) in tenants.iter_mut().zip(assigned) {
        tenant.slot = by_size.iter().position(|other| *other == slot).unwrap_or_default();
    }
    by_size.iter().map(|slot| slots[*slot].bytes).collect()
}

/// One greedy pass: the slot of each tenant, and the slots.
fn place_by(tenants: &[Tenant], order: Order, choice: Choice) -> (Vec<usize>, Vec<Slot>) {
    let mut turns: Vec<usize> = (0..tenants.len()).collect();
    turns.sort_by_key(|index| {
        let Tenant { bytes, from, to, .. } = tenants[*index];
        let length = (to - from + 1) as u64;
        match order {
            Order::Largest => (Reverse(bytes), Reverse(0), *index),
            Order::LargestTimesLongest => (Reverse(bytes.saturating_mul(length)), Reverse(0), *index),
            Order::Longest => (Reverse(length), Reverse(bytes), *index),
            Order::Earliest => (Reverse(u64::MAX - from as u64), Reverse(bytes), *index),
        }
    });
    let mut assigned = vec![0; tenants.len()];
    let mut slots: Vec<Slot> = Vec::new();
    for index in turns {
        let tenant = &tenants[index];
        let free = slots.iter().enumerate().filter(|(_, slot)| slot.is_free(tenant));
        let chosen = free.min_by_key(|(number, slot)| {
            let growth = tenant.bytes.saturating_sub(slot.bytes);
            let rank = match choice {
                Choice::First => *number as u64,
                Choice::Smallest => slot.bytes,
                Choice::TightestInTime => slot.gap(tenant) as u64,
            };
            (growth, rank, *number)
        });
        let number = chosen.map(|(number, _)| number).unwrap_or_else(|| {
            slots.push(Slot::default());
            slots.len() - 1
        });
        slots[number].bytes = slots[number].bytes.max(tenant.bytes);
        slots[number].lives.push((tenant.from, tenant.to));
        assigned[index] = number;
    }
    (assigned, slots)
}
