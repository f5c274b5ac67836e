//! A plan as text: what lives when, and who shares which memory.

use super::{Plan, Tenant};
use std::fmt;

/// Characters of the bar of the node where most is alive.
const BAR: u64 = 24;

impl Plan {
    /// Bytes alive at each node.
    pub fn alive(&self) -> Vec<u64> {
        let is_alive = |tenant: &&Tenant, node: usize| tenant.from <= node && node <= tenant.to;
        (0..self.nodes.len()).map(|node| self.tenants.iter().filter(|t| is_alive(t, node)).map(|t| t.bytes).sum()).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (alive, peak) = (self.alive(), self.peak_alive());
        writeln!(f, "temporaries: {} bytes in {} slots; most alive at once: {peak} bytes", self.bytes(), self.slots.len())?;
        writeln!(f, "node      bytes alive")?;
        for (node, (name, bytes)) in self.nodes.iter().zip(&alive).enumerate() {
            let bar = "#".repeat((bytes * BAR).div_ceil(peak.max(1)) as usize);
            let mark = if *bytes == peak { " <- most" } else { "" };
            writeln!(f, "{node:>4} {bytes:>16} {bar:<width$} {name}{mark}", width = BAR as usize)?;
        }
        for (slot, bytes) in self.slots.iter().enumerate() {
            writeln!(f, "slot {slot}: {bytes} bytes")?;
            let mut tenants: Vec<&Tenant> = self.tenants.iter().filter(|t| t.slot == slot).collect();
            tenants.sort_by_key(|t| t.from);
            for tenant in tenants {
                writeln!(f, "    {:>4}..{:<4} {:>12} {}", tenant.from, tenant.to, tenant.bytes, tenant.name)?;
            }
        }
        Ok(())
    }
}
