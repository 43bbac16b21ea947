//! What of a rule is neither header nor content: the flow's state, its bits and counters, and how often it may speak.

use bulkhead_net::stream::Phase;
use bulkhead_rules::condition::TcpSessionState;

use super::*;
use crate::threshold::Thresholds;

/// What of a rule is neither header nor content.
pub(super) fn conditions_hold(rule: &Compiled, place: Place<'_>, at: Option<At>, flow: Option<&Flow<FlowState>>) -> bool {
    let test = &rule.flow;
    if !rule.protocol_matches(place.key.proto) || (test.needs_flow && flow.is_none()) {
        return false;
    }
    if test.direction.is_some() && test.direction != place.dir {
        return false;
    }
    if test.established.is_some_and(|wanted| at.is_none_or(|at| at.established != wanted)) {
        return false;
    }
    if test.fragmented.is_some_and(|wanted| at.is_some_and(|at| at.fragmented) != wanted) {
        return false;
    }
    if test.start && !flow.is_some_and(|flow| place.dir.is_some_and(|dir| begins(flow, dir))) {
        return false;
    }
    let in_state =
        |states: &Vec<TcpSessionState>| flow.and_then(|flow| flow.tcp.as_ref()).is_some_and(|stream| states.contains(&session(stream)));
    if !rule.sessions.iter().all(in_state) {
        return false;
    }
    let not_known = |flow: &Flow<FlowState>| flow.state.app_bit() == 0;
    let told = |flow: &Flow<FlowState>| flow.state.app_told;
    if (rule.before_app && !flow.is_some_and(not_known)) || (rule.once_app && flow.is_none_or(told)) {
        return false;
    }
    if !rule.stream_sizes.iter().all(|(end, test)| flow.is_some_and(|flow| stream_size_holds(*end, *test, flow))) {
        return false;
    }
    if !rule.flowints.iter().all(|step| flow.is_some_and(|flow| flowint_holds(step, &flow.state))) {
        return false;
    }
    rule.flowbits.iter().all(|bits| {
        let any = || flow.is_some_and(|flow| bits.names.iter().any(|name| flow.state.has_bit(*name)));
        match bits.operation {
            FlowbitsOperation::IsSet => any(),
            FlowbitsOperation::IsNotSet => flow.is_some() && !any(),
            FlowbitsOperation::Set | FlowbitsOperation::Unset | FlowbitsOperation::Toggle => true,
        }
    })
}

const fn session(stream: &TcpStream) -> TcpSessionState {
    match stream.phase() {
        Phase::New | Phase::SynSent | Phase::SynReceived => TcpSessionState::Setup,
        Phase::Established => TcpSessionState::Established,
        Phase::Closing | Phase::Closed => TcpSessionState::Closing,
    }
}

/// The packet in hand is the first of its direction.
const fn begins(flow: &Flow<FlowState>, dir: Direction) -> bool {
    match dir {
        Direction::ToServer => flow.to_server.packets == 1,
        Direction::ToClient => flow.to_client.packets == 1,
    }
}

/// Sequence numbers used by each end, its SYN included, as the reference engine counts them.
pub(super) fn stream_size_holds(end: StreamEnd, test: NumberTest, flow: &Flow<FlowState>) -> bool {
    let Some(stream) = &flow.tcp else { return false };
    let of = |dir: Direction| test.matches(stream.delivered(dir) + 1);
    let (client, server) = (of(Direction::ToServer), of(Direction::ToClient));
    match end {
        StreamEnd::Server => server,
        StreamEnd::Client => client,
        StreamEnd::Both => client && server,
        StreamEnd::Either => client || server,
    }
}

/// The value that an operation is about: a number, or another counter's, when it is set.
pub(super) fn flowint_value(step: &FlowintStep, value: &FlowintValue, state: &FlowState) -> Option<u32> {
    match value {
        FlowintValue::Number(number) => Some(*number),
        FlowintValue::Name(_) => step.other.and_then(|other| state.flowint(other)),
    }
}

/// Of a counter that is not set nothing holds but that. Writes hold.
pub(super) fn flowint_holds(step: &FlowintStep, state: &FlowState) -> bool {
    use FlowintOperation as Of;
    let is = |value: &FlowintValue, test: fn(&u32, &u32) -> bool| {
        state.flowint(step.name).zip(flowint_value(step, value, state)).is_some_and(|(found, wanted)| test(&found, &wanted))
    };
    match &step.operation {
        Of::IsSet => state.flowint(step.name).is_some(),
        Of::IsNotSet => state.flowint(step.name).is_none(),
        Of::Less(value) => is(value, u32::lt),
        Of::LessOrEqual(value) => is(value, u32::le),
        Of::Equal(value) => is(value, u32::eq),
        Of::NotEqual(value) => is(value, u32::ne),
        Of::GreaterOrEqual(value) => is(value, u32::ge),
        Of::Greater(value) => is(value, u32::gt),
        Of::Add(_) | Of::Subtract(_) | Of::Set(_) => true,
    }
}

/// Counters that found no room.
pub(super) fn apply_flowints(rule: &Compiled, state: &mut FlowState) -> u64 {
    use FlowintOperation as Of;
    let mut refused = 0;
    for step in &rule.flowints {
        let before = state.flowint(step.name);
        let value = match &step.operation {
            Of::Set(value) => flowint_value(step, value, state),
            Of::Add(value) => flowint_value(step, value, state).map(|value| before.unwrap_or(0).saturating_add(value)),
            Of::Subtract(value) => flowint_value(step, value, state).map(|value| before.unwrap_or(0).saturating_sub(value)),
            Of::Less(_) | Of::LessOrEqual(_) | Of::Equal(_) | Of::NotEqual(_) | Of::GreaterOrEqual(_) | Of::Greater(_) => None,
            Of::IsSet | Of::IsNotSet => None,
        };
        if let Some(value) = value {
            refused += u64::from(!state.set_flowint(step.name, value));
        }
    }
    refused
}

/// Bits that found no room.
pub(super) fn apply_flowbits(rule: &Compiled, state: &mut FlowState) -> u64 {
    let mut refused = 0;
    for bits in &rule.flowbits {
        for name in &bits.names {
            let set = match bits.operation {
                FlowbitsOperation::Set => true,
                FlowbitsOperation::Toggle => !state.has_bit(*name),
                FlowbitsOperation::Unset => false,
                FlowbitsOperation::IsSet | FlowbitsOperation::IsNotSet => continue,
            };
            if !set {
                state.clear_bit(*name);
            } else if !state.set_bit(*name) {
                refused += 1;
            }
        }
    }
    refused
}

/// Each threshold is asked; the least willing one decides.
pub(super) fn ask_thresholds(thresholds: &mut Thresholds, rule: &Compiled, place: Place<'_>, from: End, to: End) -> Answer {
    let mut answer = Answer::Alert;
    for (which, threshold) in rule.thresholds.iter().enumerate() {
        match thresholds.ask(place.now, (rule.info.key(), which as u8), threshold, ((from.0, from.1), (to.0, to.1)), place.key.id) {
            Answer::Alert => {}
            Answer::Silent => answer = Answer::Silent,
            Answer::NotYet => return Answer::NotYet,
        }
    }
    answer
}
