"""Everything that a plugin author implements, and nothing else.

A component is built by an `IComponentFactory`, which is found by its name: an object in a module of `twisted.plugins`, or
behind an entry point of the group ``mailserver.plugins``.  Every method typed ``Awaitable`` may be an ``async def`` or may
return a Deferred.  The core gives each call a deadline; a call that fails or takes too long counts as the configured
`on_error`, which is *defer* unless the administrator says otherwise: a broken plugin never loses and never lets through.

In the order in which they are read:

* `components`: how a component is made, started and ended, and what any of them may provide besides its kind
* `filters`: those who judge, change or watch a message
* `session`: those who add to what is said over SMTP, or are told how it ends
* `accounts`: who exists and who may log in
* `delivery`: where a recipient goes, and how a message gets there
* `outbound`: those who have a say about mail on its way to other hosts, and about reports to senders
* `services`: what the core lends to a component
"""

from mailserver.interfaces.accounts import (
    CannotTell,
    Denial,
    Denied,
    IAccountList,
    IAuthenticator,
    ICertificateAccounts,
    IDirectory,
    IHostAccounts,
    ILogin,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
    IUsualScramForm,
    LoggedIn,
)
from mailserver.interfaces.components import (
    Argument,
    CannotDo,
    ComponentCommand,
    IAccountFollower,
    ICommands,
    IComponent,
    IComponentFactory,
    ICounting,
    IPeriodic,
    IPrivilegedComponent,
    IReloading,
    ISweeping,
)
from mailserver.interfaces.delivery import (
    Candidate,
    IBatchDelivery,
    IConcurrentDelivery,
    IDelivery,
    IForgiving,
    IHostFinder,
    IMailReader,
    IMayBeMissing,
    IPreparing,
    IRouter,
)
from mailserver.interfaces.filters import (
    IContentFilter,
    IModifier,
    IObserver,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
    ISigner,
)
from mailserver.interfaces.outbound import (
    IAttemptFilter,
    IHostDelivery,
    IHosts,
    IReportPolicy,
    ReportDraft,
)
from mailserver.interfaces.services import (
    Clock,
    ComparesPasswords,
    ComponentMetrics,
    ComponentThreads,
    Fetch,
    InReactor,
    IQuarantine,
    IRecords,
    IResolver,
    IStateStore,
    IWaitingMail,
    KeepProcess,
    NewThreads,
    RunInProcess,
    RunInThread,
    Send,
    Services,
    Timer,
)
from mailserver.interfaces.session import IExtension, IPeerEnd, ITransactionEnd, TransactionEnd

__all__ = [
    "Argument",
    "Candidate",
    "CannotDo",
    "CannotTell",
    "Clock",
    "ComparesPasswords",
    "ComponentCommand",
    "ComponentMetrics",
    "ComponentThreads",
    "Denial",
    "Denied",
    "Fetch",
    "IAccountFollower",
    "IAccountList",
    "IAttemptFilter",
    "IAuthenticator",
    "IBatchDelivery",
    "ICertificateAccounts",
    "ICommands",
    "IComponent",
    "IComponentFactory",
    "IConcurrentDelivery",
    "IContentFilter",
    "ICounting",
    "IDelivery",
    "IDirectory",
    "IExtension",
    "IForgiving",
    "IHostAccounts",
    "IHostDelivery",
    "IHostFinder",
    "IHosts",
    "IMailReader",
    "ILogin",
    "IMayBeMissing",
    "IModifier",
    "IObserver",
    "IPeerEnd",
    "IPeerFilter",
    "IPeriodic",
    "IPreparing",
    "IPrivilegedComponent",
    "IRecipientContentFilter",
    "IRecipientFilter",
    "IQuarantine",
    "IRecords",
    "IReloading",
    "IReportPolicy",
    "IResolver",
    "IRouter",
    "IScorer",
    "IScramAccounts",
    "ISecretAccounts",
    "ISenderFilter",
    "ISenderGrants",
    "ISigner",
    "IStateStore",
    "ISweeping",
    "ITransactionEnd",
    "IUsualScramForm",
    "IWaitingMail",
    "InReactor",
    "KeepProcess",
    "LoggedIn",
    "NewThreads",
    "ReportDraft",
    "RunInProcess",
    "RunInThread",
    "Send",
    "Services",
    "Timer",
    "TransactionEnd",
]
