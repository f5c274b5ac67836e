//! Whether an adapter is trusted with mixed precision, and with its matrix units.
//!
//! Matrix units are tried in a process of their own ([`super::proof_worker`]) before this one uses them: drivers have been
//! seen to crash in them. Where an adapter has none, no process is started.

use super::context::{Context, OpenedGpu};
use super::error::Failure;
use super::proof_worker::{Job, Said, VERB};
use super::worker::{self, Ended};
use crate::errors::one_line;
use crate::gpu::{HalfFault, HalfProof, keep_half, known_half, prove_storage};
use crate::kernels::MatrixUnits;
use crate::train::config::Precision;
use std::process::ExitStatus;
use std::time::Duration;

/// What to go on with.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    /// The number format.
    pub precision: Precision,
    /// Why that is not what was asked for, or goes without the matrix units there are.
    pub fallback: Option<String>,
}

/// The number format to go on with: mixed precision only where the device proves to compute rightly in it, and its matrix
/// units only where they do. Whatever is left out is a warning; what goes on with a run that began in mixed precision fails.
pub fn trusted(gpu: &mut OpenedGpu<'_>, precision: Precision, is_resumed: bool, context: &Context) -> Result<Trusted, Failure> {
    if precision == Precision::F32 {
        return Ok(Trusted { precision, fallback: None });
    }
    let HalfProof { matrix_units, storage } = proof(gpu, context)?;
    let name = gpu.adapter().name.clone();
    if let (Some(why), true) = (&storage, is_resumed) {
        return Err(Failure::SelfCheck(format!(
            "{name} computes wrongly in half precision ({}), and a run keeps its precision: go on with it on another device",
            one_line(why, 300)
        )));
    }
    if let Some(why) = storage {
        let what = format!("{name} computes wrongly in half precision ({})", one_line(&why, 300));
        context.note(&format!("warning: {what}; going on in f32"));
        return Ok(Trusted { precision: Precision::F32, fallback: Some(format!("in f32: {what}")) });
    }
    let without = matrix_units.map(|why| leave_out_units(gpu, &why, context));
    Ok(Trusted { precision, fallback: without.map(|what| format!("without matrix units: {what}")) })
}

/// Warns of wrong matrix units and leaves them alone from now on; what was said of them.
fn leave_out_units(gpu: &mut OpenedGpu<'_>, why: &str, context: &Context) -> String {
    let what = format!("the matrix units of {} do not compute as they should ({})", gpu.adapter().name, one_line(why, 300));
    context.note(&format!("warning: {what}; going on without them"));
    gpu.forbid_matrix_units();
    what
}

/// Leaves matrix units alone where they are not right: for what runs them in any precision.
pub fn leave_out_wrong_units(gpu: &mut OpenedGpu<'_>, context: &Context) -> Result<(), Failure> {
    if gpu.target().matrix_units != MatrixUnits::None
        && let Some(why) = proof(gpu, context)?.matrix_units
    {
        leave_out_units(gpu, &why, context);
    }
    Ok(())
}

/// As [`crate::gpu::prove_half`], with matrix units in a process of their own.
fn proof(gpu: &mut OpenedGpu<'_>, context: &Context) -> Result<HalfProof, Failure> {
    if let Some(proof) = known_half(gpu)? {
        return Ok(proof);
    }
    let Tried { wrong: matrix_units, is_lasting, .. } = try_matrix_units(gpu, context)?;
    let proof = HalfProof { matrix_units, storage: prove_storage(gpu)? };
    if is_lasting {
        keep_half(gpu, &proof);
    }
    Ok(proof)
}

/// What came of trying matrix units.
pub struct Tried {
    /// What is wrong with them, if anything.
    pub wrong: Option<String>,
    /// They cannot be run again without danger to this process.
    pub is_dangerous: bool,
    /// Trying once more would come to the same.
    pub is_lasting: bool,
}

impl Tried {
    /// There are none, or they are right.
    const RIGHT: Tried = Tried { wrong: None, is_dangerous: false, is_lasting: true };
}

/// Time for a worker to open the device, to compile the kernels, and for each kernel's run.
const LIMIT: Duration = Duration::from_secs(60);
/// The same where it is planted that it hangs.
const SHORT_LIMIT: Duration = Duration::from_secs(2);
/// A worker that can say that its time is over is given this much to do so.
const MARGIN: Duration = Duration::from_secs(3);

/// Runs the matrix units of a device, where it has any, in a process of their own. The device is opened anew where that
/// process may have taken it along.
pub fn try_matrix_units(gpu: &mut OpenedGpu<'_>, context: &Context) -> Result<Tried, Failure> {
    if gpu.target().matrix_units == MatrixUnits::None {
        return Ok(Tried::RIGHT);
    }
    let limit = if HalfFault::planted()? == Some(HalfFault::MatrixUnitsHang) { SHORT_LIMIT } else { LIMIT };
    let mut wrong = None;
    let mut hear = |line: &str| match serde_json::from_str(line) {
        Ok(Said::Wrong(found)) => wrong = Some(found),
        Ok(Said::GoesOn) => {}
        Err(_) => context.detail(line),
    };
    let ended = worker::run(context, VERB, &Job { limit_s: limit.as_secs_f64() }, Some(limit + MARGIN), &mut hear);
    let ended = match (ended, wrong) {
        (Ok(()), Some(wrong)) => return Ok(Tried { wrong, ..Tried::RIGHT }),
        (Ok(()), None) => Ended::Failed("the process that tried them said nothing".into()),
        (Err(ended), _) => ended,
    };
    gpu.reopen()?;
    Ok(Tried { is_lasting: is_lasting(&ended), wrong: Some(said_of(&ended, limit)), is_dangerous: true })
}

/// Whether the device is behind the end of a process, and would end another one as well.
fn is_lasting(ended: &Ended) -> bool {
    match ended {
        Ended::Stalled => true,
        Ended::Died(status, _) => !is_from_outside(status),
        Ended::NotStarted(_) | Ended::Failed(_) => false,
    }
}

#[cfg(unix)]
fn signal(status: &ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(status)
}

#[cfg(not(unix))]
fn signal(_: &ExitStatus) -> Option<i32> {
    None
}

/// Whether somebody else ended a process: the user, the system's shutdown, or for want of memory.
fn is_from_outside(status: &ExitStatus) -> bool {
    const HANGUP: i32 = 1;
    const INTERRUPT: i32 = 2;
    const KILL: i32 = 9;
    const TERMINATE: i32 = 15;
    signal(status).is_some_and(|signal| [HANGUP, INTERRUPT, KILL, TERMINATE].contains(&signal))
}

/// How a worker ended, as users read it.
fn said_of(ended: &Ended, limit: Duration) -> String {
    match ended {
        Ended::Stalled => format!("the driver did not come back within {} s", limit.as_secs()),
        Ended::Died(status, _) if is_from_outside(status) => format!("the process that tried them was ended: {status}"),
        Ended::Died(status, last) => {
            let how = signal(status).map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
            let last = last.as_ref().map_or(String::new(), |line| format!(": {line}"));
            format!("the driver ended the process ({how}){last}")
        }
        Ended::NotStarted(_) | Ended::Failed(_) => ended.to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn what_the_driver_did_is_said_and_kept_but_not_what_somebody_else_did() {
        let died = |raw: i32, last: Option<&str>| Ended::Died(ExitStatus::from_raw(raw), last.map(str::to_string));
        let said = |ended: &Ended| said_of(ended, Duration::from_secs(60));
        for (ended, text, lasts) in [
            (died(11, None), "the driver ended the process (signal 11)", true),
            (died(6, Some("LLVM ERROR: no")), "the driver ended the process (signal 6): LLVM ERROR: no", true),
            (died(3 << 8, None), "the driver ended the process (exit status: 3)", true),
            (Ended::Stalled, "the driver did not come back within 60 s", true),
            (died(2, None), "the process that tried them was ended: signal: 2 (SIGINT)", false),
            (died(9, None), "the process that tried them was ended: signal: 9 (SIGKILL)", false),
            (Ended::Failed("the device was lost".into()), "the device was lost", false),
            (Ended::NotStarted("no".into()), "a process cannot be started: no", false),
        ] {
            assert_eq!((said(&ended).as_str(), is_lasting(&ended)), (text, lasts));
        }
    }
}
