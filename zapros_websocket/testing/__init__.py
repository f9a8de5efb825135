"""For the tests of what talks WebSocket: servers on loopback, an ASGI handler with real frames, a recorder."""

from ._application import Application as Application
from ._asgi import WebSocketAsgiHandler as WebSocketAsgiHandler
from ._company import ScriptFailed as ScriptFailed
from ._echo import MAX_MESSAGE_SIZE as MAX_MESSAGE_SIZE
from ._echo import EchoServer as EchoServer
from ._echo import Traffic as Traffic
from ._echo import echo_server as echo_server
from ._peer import HandshakeRequest as HandshakeRequest
from ._recorder import Recorder as Recorder
from ._recording import Entry as Entry
from ._recording import read_recording as read_recording
from ._script import Script as Script
from ._scripted import ScriptedServer as ScriptedServer
from ._scripted import SyncScriptedServer as SyncScriptedServer
from ._scripted import scripted_server as scripted_server
