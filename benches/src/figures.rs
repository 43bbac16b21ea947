//! The arithmetic: percentiles, means, ratios, processor time. Pure.

use std::time::Duration;

/// Jiffies of `/proc/stat` are hundredths of a second: `USER_HZ` is 100 on every architecture that Linux still builds for.
const JIFFIES_PER_SECOND: f64 = 100.0;

/// The value below which `percent` of the sorted values lie, by the nearest-rank method; none of no values.
pub fn percentile(sorted: &[u32], percent: f64) -> Option<u32> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).checked_sub(1)?).copied()
}

/// None of no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Distance of the two outermost values as a part of the mean: what a bare row drifted within the run.
/// None for fewer than two values or a mean of 0.
pub fn spread(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (values.len() > 1 && mean != 0.0).then(|| (most - least) / mean)
}

/// `value / base`; none where the base is 0 or no number.
pub fn ratio(value: f64, base: f64) -> Option<f64> {
    let ratio = value / base;
    (base != 0.0 && ratio.is_finite()).then_some(ratio)
}

/// 0 when more arrived than was sent: a datagram that was still under way at an earlier count.
pub fn loss(sent: u64, received: u64) -> Option<f64> {
    (sent > 0).then(|| sent.saturating_sub(received) as f64 / sent as f64)
}

pub fn gbit(bytes: u64) -> f64 {
    bytes as f64 * 8.0 / 1e9
}

pub fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// Time that the processors of a machine have spent, from the first line of `/proc/stat` (`proc(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// In anything but idling and waiting for disks, and without what a hypervisor took away: jiffies.
    pub busy: u64,
    /// Taken by the hypervisor.
    pub stolen: u64,
}

impl CpuTimes {
    /// user nice system idle iowait irq softirq steal guest guest_nice; the guests are within user and nice already.
    pub fn parse(stat: &str) -> Option<Self> {
        let mut line = stat.lines().find(|line| line.starts_with("cpu "))?.split_ascii_whitespace().skip(1);
        let mut field = || line.next()?.parse::<u64>().ok();
        let [user, nice, system, _idle, _iowait, irq, softirq] = [field()?, field()?, field()?, field()?, field()?, field()?, field()?];
        Some(Self { busy: user + nice + system + irq + softirq, stolen: field().unwrap_or(0) })
    }

    /// Processor seconds since an earlier reading.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.busy.saturating_sub(earlier.busy) as f64 / JIFFIES_PER_SECOND
    }

    pub fn stolen_since(self, earlier: Self) -> f64 {
        self.stolen.saturating_sub(earlier.stolen) as f64 / JIFFIES_PER_SECOND
    }
}

/// A number with three digits that count: `0.0123`, `1.23`, `12.3`, `123`, `123456`.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m >= 100.0 || m == 0.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        m if m >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Bytes as MiB with one decimal.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&values, 50.0), Some(50));
        assert_eq!(percentile(&values, 99.0), Some(99));
        assert_eq!(percentile(&values, 100.0), Some(100));
        assert_eq!(percentile(&values, 0.0), Some(1));
        assert_eq!(percentile(&[7], 99.0), Some(7));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn ratios_need_a_base() {
        assert_eq!(ratio(8.0, 10.0), Some(0.8));
        assert_eq!(ratio(8.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }

    #[test]
    fn means_and_spreads_show_drift() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[9.0, 11.0]), Some(10.0));
        assert_eq!(spread(&[9.0, 11.0]), Some(0.2));
        assert_eq!(spread(&[9.0]), None);
        assert_eq!(spread(&[0.0, 0.0]), None);
    }

    #[test]
    fn loss_is_never_negative() {
        assert_eq!(loss(100, 75), Some(0.25));
        assert_eq!(loss(100, 101), Some(0.0));
        assert_eq!(loss(0, 0), None);
    }

    #[test]
    fn processor_time_leaves_out_idling_and_what_was_stolen() {
        let first = CpuTimes::parse("cpu  100 10 50 9000 70 5 15 30 40 1\ncpu0 1 1 1 1 1 1 1\n").expect("a stat line");
        assert_eq!(first, CpuTimes { busy: 180, stolen: 30 });
        let later = CpuTimes::parse("cpu  300 10 50 9900 70 5 15 80").expect("a stat line");
        assert_eq!(later.seconds_since(first), 2.0);
        assert_eq!(later.stolen_since(first), 0.5);
        assert_eq!(first.seconds_since(later), 0.0);
        for broken in ["", "cpu0 1 2 3", "cpu  1 2 3", "cpu  a b c d e f g"] {
            assert_eq!(CpuTimes::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn units_come_out_right() {
        assert_eq!(gbit(125_000_000), 1.0);
        assert_eq!(per_second(500, Duration::from_millis(500)), 1000.0);
        assert_eq!(per_second(500, Duration::ZERO), 0.0);
        let shown = [0.0, 0.01234, 0.123, 1.234, 12.34, 123.4, 123_456.7].map(short);
        assert_eq!(shown, ["0", "0.0123", "0.123", "1.23", "12.3", "123", "123457"]);
        assert_eq!(mib(40 << 20), "40.0 MiB");
    }
}
