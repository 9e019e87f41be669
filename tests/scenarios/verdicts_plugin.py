"""The source of a plugin that judges a message for each recipient by the recipient's name, and again later.

A file ``changed`` in the data folder turns *later* into whatever is written there.
"""

PLUGIN = '''
import os

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientContentFilter
from mailserver.mail.answers import Defer, Discard, Pass, Quarantine, Refuse

WORDS = {
    "no": Refuse("no for this one"), "later": Defer("later for this one"), "aside": Quarantine("odd for this one"),
    "gone": Discard("gone for this one"),
}


@implementer(IRecipientContentFilter)
class ByName:
    def __init__(self, changed):
        self.changed = changed

    async def judge_content_for(self, envelope, content, recipient):
        word = recipient.address.local
        if word == "later" and os.path.exists(self.changed):
            with open(self.changed) as file:
                word = file.read()
        return WORDS.get(word, Pass())


@implementer(IComponentFactory)
class ByNameFactory:
    api_version = "1"
    name = "byname"
    summary = "Judges by the name of the recipient."
    provides = (IRecipientContentFilter,)
    options = Options

    def build(self, options, services):
        return ByName(os.path.join(services.data_directory, "changed"))


byname = ByNameFactory()
'''
FILTER = '\n[[filter]]\nuse = "byname"\n'
