//! `bulkhead workloads`: what runs, and whether it is protected.

use bulkhead_api::{Protected, WorkloadView};
use bulkhead_model::{Mode, Published, Runtime};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Colour;
use crate::status::mode_name;
use crate::table::{Cell, Table};

/// List containers and other network namespaces, and whether each is protected
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub struct Args {
    /// Only these: a pattern for the name (`web*`), or conditions (`image=nginx*,label.app=shop`)
    #[arg(value_name = "SELECTOR", value_parser = crate::mode::selector)]
    selector: Option<String>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let mut views = context.client()?.workloads()?;
    if let Some(selector) = &args.selector {
        views = crate::mode::selected(views, selector)?;
    }
    if context.json() {
        context.out.json(&views)?;
        return Ok(Exit::Ok);
    }
    if views.is_empty() {
        context.out.line("no workloads")?;
        return Ok(Exit::Ok);
    }
    let (style, width) = (context.out.style(), context.out.width());
    let lines = table(&views).render(style, width);
    context.out.lines(lines)?;
    Ok(Exit::Ok)
}

pub fn table(views: &[WorkloadView]) -> Table {
    let mut table = Table::new(["NAME", "MODE", "FAIL", "PROTECTED", "RUNTIME", "ADDRESSES", "PUBLISHED", "IMAGE"]);
    for view in views {
        let workload = &view.workload;
        table.row([
            Cell::new(&workload.name).colour(Colour::Head),
            mode_cell(view),
            view.fail.name().into(),
            protected_cell(view),
            runtime_name(workload.runtime).into(),
            addresses(view).into(),
            published(&workload.published).into(),
            workload.image.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}

pub fn mode_cell(view: &WorkloadView) -> Cell {
    let colour = match view.mode {
        Mode::Protect => Colour::Good,
        Mode::Monitor => Colour::Plain,
    };
    Cell::new(mode_name(view.mode)).colour(colour)
}

pub fn protected_cell(view: &WorkloadView) -> Cell {
    match &view.protected {
        Protected::Yes => Cell::new("yes").colour(Colour::Good),
        Protected::No(reason) => Cell::new(format!("no: {reason}")).colour(Colour::Warn),
    }
}

pub fn addresses(view: &WorkloadView) -> String {
    let all: Vec<String> = view.workload.interfaces.iter().flat_map(|interface| &interface.addresses).map(ToString::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

fn published(ports: &[Published]) -> String {
    let all: Vec<String> = ports.iter().map(|port| format!("{}->{}/{}", port.host_port, port.container_port, port.protocol)).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

const fn runtime_name(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Docker => "docker",
        Runtime::Containerd => "containerd",
        Runtime::Cri => "cri",
        Runtime::Podman => "podman",
        Runtime::Namespace => "namespace",
    }
}
