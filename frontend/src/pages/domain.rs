//! An Ingress: which hosts it makes reachable, where they lead, what their DNS needs; and the dialog that makes one.

use super::object::Subject;
use crate::client::apply::apply_all;
use crate::client::live::{self, Query};
use crate::components::dialog::{Copy, Dialog};
use crate::components::editor::Editor;
use crate::components::icon::{Icon, icon};
use crate::components::state::{Badge, Banner};
use crate::words::{Word, t};
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use longshore_page_model::domain::{self, Around, Host, Tls};
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::{EndpointSlice, Event, Ingress, Service};
use longshore_page_model::read::Read;
use longshore_page_model::table::Whole;
use longshore_page_model::yaml;

#[component]
pub fn Overview(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let this = subject.read::<Ingress>();
    let of = move |slug: &str| {
        let path = Kind::by_slug(slug, &[]).map(|k| subject.namespace.with_value(|ns| k.list_path(Some(ns))));
        Query::new(&scope.cluster.get(), path.unwrap_or_default())
    };
    let services = live::watch::<Whole>(move || Some(of("services")));
    let slices = live::watch::<EndpointSlice>(move || Some(of("endpointslices")));
    let about = subject.name.with_value(|name| format!("involvedObject.kind=Ingress,involvedObject.name={name}"));
    let events = live::watch::<Event>(move || Some(of("events").fields(about.clone())));
    let hosts = Memo::new(move |_| {
        let services: Vec<Service> =
            services.data.with(|s| s.items.values().map(|whole| Service::read(&whole.tree)).collect());
        let slices: Vec<_> = slices.data.with(|s| s.items.values().cloned().collect());
        let around = Around { services: &services, slices: &slices };
        this.with(|i| i.as_ref().map(|i| domain::hosts(i, &around))).unwrap_or_default()
    });
    let warnings = Memo::new(move |_| {
        let all: Vec<_> = events.data.with(|e| e.items.values().cloned().collect());
        this.with(|i| i.as_ref().map(|i| domain::warnings(i, all.into_iter()))).unwrap_or_default()
    });
    let said = Memo::new(move |_| {
        // Before they are loaded nobody can say that nobody answers.
        let hosts = if services.loaded() && slices.loaded() { hosts.get() } else { Vec::new() };
        this.with(|i| i.as_ref().map(|i| domain::sentence(i, &hosts, &warnings.get(), live::now()))).unwrap_or_default()
    });
    let records =
        Memo::new(move |_| this.with(|i| i.as_ref().map(|i| domain::records(i, &warnings.get()))).unwrap_or_default());
    let act = Callback::new(move |_| subject.open_tab.run("yaml".into()));
    view! {
        <Banner sentence=said on_action=act/>
        <section class="card"><h2>{t(Word::DomainsTitle)}</h2>{move || hosts.get().into_iter().map(|host| host_view(subject, host)).collect_view()}</section>
        {move || (!records.with(Vec::is_empty)).then(|| view! {
            <section class="card"><h2>{t(Word::DnsTitle)}</h2><p class="quiet">{t(Word::DnsText)}</p>
                <ul class="containers" data-testid="dns">{records.get().into_iter().map(|record| view! {
                    <li><span class="mono">{record.name}</span><span class="chip mono">{record.r#type}</span><span class="mono grow">{record.value.clone()}</span><Copy text=record.value/></li>
                }).collect_view()}</ul></section>
        })}
        <super::object::Events subject heading=true/>
    }
}

fn host_view(subject: Subject, host: Host) -> AnyView {
    let name = if host.name.is_empty() { t(Word::DomainAnyHost).to_string() } else { host.name };
    let tls = match &host.tls {
        Tls::None => view! { <span class="quiet">{t(Word::TlsNone)}</span> }.into_any(),
        Tls::Automatic => view! { <span class="quiet">{t(Word::TlsAutomatic)}</span> }.into_any(),
        Tls::Secret(secret) => {
            let href = subject.namespace.with_value(|ns| subject.scope.object("secrets", ns, secret));
            view! { <a class="quiet" href=href>{Word::TlsSecret.with(&[("name", secret)])}</a> }.into_any()
        }
    };
    let title = match host.url {
        Some(url) => {
            let label = Word::OpenHost.with(&[("host", &url)]);
            view! { <a class="mono host" href=url target="_blank" rel="noopener" aria-label=label>{name}{icon(Icon::ExternalLink)}</a> }
                .into_any()
        }
        None => view! { <span class="mono host">{name}</span> }.into_any(),
    };
    let leads = host.paths.into_iter().map(|lead| {
        let href = subject.namespace.with_value(|ns| subject.scope.object("services", ns, &lead.service));
        view! { <li><span class="mono">{lead.path}</span><span aria-hidden="true">"→"</span>
            <a class="mono quiet" href=href>{lead.service}":"{lead.port}</a><Badge state=lead.backing.state() text=lead.backing.text()/></li> }
    });
    view! { <div class="domain"><h3>{title}{tls}</h3><ul class="containers">{leads.collect_view()}</ul></div> }
        .into_any()
}

/// On a Service's page: makes an Ingress for it, after showing what that will be.
#[component]
pub fn GiveDomain(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let this = subject.read::<Service>();
    let open = RwSignal::new(false);
    let (host, port, tls) = (RwSignal::new(String::new()), RwSignal::new(0), RwSignal::new(true));
    let (text, marks, busy) = (RwSignal::new(String::new()), RwSignal::new(Vec::new()), RwSignal::new(false));
    let ports = Memo::new(move |_| {
        let all = this.with(|s| s.as_ref().map(|s| s.spec.ports.clone())).unwrap_or_default();
        all.into_iter().filter(|p| matches!(p.protocol.as_str(), "" | "TCP")).collect::<Vec<_>>()
    });
    Effect::new(move |_| {
        let (host, port, tls) = (host.get().trim().to_lowercase(), port.get(), tls.get());
        let made = this.with(|s| s.as_ref().map(|s| yaml::print(&domain::new_ingress(s, &host, port, tls))));
        text.set(made.filter(|_| !host.is_empty()).unwrap_or_default());
        marks.set(Vec::new());
    });
    let start = move |_| {
        port.set(ports.with_untracked(|p| p.first().map(|p| p.port)).unwrap_or_default());
        marks.set(Vec::new());
        open.set(true);
    };
    let navigate = StoredValue::new(use_navigate());
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() || text.with_untracked(String::is_empty) {
            return;
        }
        busy.set(true);
        leptos::task::spawn_local(async move {
            match apply_all(scope, &text.get_untracked(), true).await {
                Ok(done) => {
                    open.try_set(false);
                    if let Some(made) = done.first() {
                        navigate.with_value(|go| go(&made.href, Default::default()));
                    }
                }
                Err(found) => {
                    marks.try_set(found);
                }
            }
            busy.try_set(false);
        });
    };
    let choice = move || {
        let all = ports.get();
        (all.len() > 1).then(|| view! {
            <label class="field"><span>{t(Word::Port)}</span>
                <select class="select" on:change=move |e| port.set(event_target_value(&e).parse().unwrap_or_default())>
                    {all.into_iter().map(|p| view! { <option value=p.port.to_string() selected=port.get_untracked() == p.port>{p.port}" "{p.name}</option> }).collect_view()}
                </select></label>
        })
    };
    view! {
        {move || (!ports.with(Vec::is_empty)).then(|| view! { <button class="button" data-testid="give-domain" on:click=start>{icon(Icon::Globe)}{t(Word::GiveDomain)}</button> })}
        <Dialog open title=t(Word::GiveDomain).to_string() wide=true>
            <form class="form" on:submit=submit>
                <label class="field"><span>{t(Word::HostField)}</span>
                    <input class="input mono" data-testid="host" placeholder="shop.example.com" autofocus autocomplete="off" autocapitalize="off" spellcheck="false"
                        prop:value=host on:input=move |e| host.set(event_target_value(&e))/></label>
                {choice}
                <label class="toggle"><input type="checkbox" prop:checked=tls on:change=move |e| tls.set(event_target_checked(&e))/><span>{t(Word::UseTls)}</span></label>
                <div class="preview"><h2>{t(Word::Preview)}</h2><Editor text marks label=t(Word::Preview) readonly=true/></div>
                <footer class="dialog-foot"><button type="button" class="button" on:click=move |_| open.set(false)>{t(Word::Cancel)}</button>
                    <button class="button primary" type="submit" data-testid="create-domain" disabled=move || busy.get() || text.with(String::is_empty)>{t(Word::Create)}</button></footer>
            </form>
        </Dialog>
    }
}
