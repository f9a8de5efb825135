/* Data frames to bytes and back, as pure.py says it; the reasons stand there.
 *
 * The full API and not the limited one: in the limited one of Python 3.10 there are no buffers.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(PYPY_VERSION) || defined(Py_GIL_DISABLED)
/* The keys and the buffers are guarded by the GIL. Without it there is the form in Python. */
#error "this needs CPython with its global interpreter lock"
#endif

#define FINAL 0x80
#define COMPRESSED 0x40
#define MASKED 0x80
#define TEXT 0x1
#define BINARY 0x2

/* What a member descriptor says of a slot; public only since 3.12. */
#if PY_VERSION_HEX >= 0x030C0000
#define SLOT Py_T_OBJECT_EX
#else
#include <structmember.h>
#define SLOT T_OBJECT_EX
#endif

#define KEY 4
#define LONGEST_HEADER 10
/* Bytes of keys that are asked for at once. */
#define KEYS 1024
/* Bytes that are inflated in one call, and one message. */
#define ENOUGH (256 * 1024)
/* Up to here, in bytes, a copy costs less than a view that saves it. */
#define SMALL 4096

/* How to make a message without its __init__, which takes longer than parsing: its slots are written directly. */
typedef struct {
    PyTypeObject *type;
    Py_ssize_t data; /* where the slots are in an instance, in bytes */
    Py_ssize_t kind;
    PyObject *kind_value;
} Maker;

typedef struct {
    Maker text;
    Maker binary;
    PyObject *close_message;
    PyObject *not_utf8;
    PyObject *os;
    PyObject *inflate; /* its name */
    PyObject *final;   /* the names of its keyword arguments */
    unsigned char keys[KEYS]; /* the last keys_left of them are unused */
    Py_ssize_t keys_left;
} State;

static inline State *
state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

/* Messages */

static inline PyObject **
slot_of(PyObject *message, Py_ssize_t offset)
{
    return (PyObject **)((char *)message + offset);
}

/* Takes over the reference to data, which may be NULL with an exception set. */
static PyObject *
make_message(const Maker *maker, PyObject *data)
{
    PyObject *message;
    if (data == NULL) {
        return NULL;
    }
    message = maker->type->tp_alloc(maker->type, 0);
    if (message == NULL) {
        Py_DECREF(data);
        return NULL;
    }
    Py_INCREF(maker->kind_value);
    *slot_of(message, maker->data) = data;
    *slot_of(message, maker->kind) = maker->kind_value;
    /* A frozen pair of strings is part of no cycle, which saves the collector a look at each. */
    PyObject_GC_UnTrack(message);
    return message;
}

/* What a message that is not UTF-8 comes to; the exception says why. NULL when it is another one. */
static PyObject *
failure_of_text(const State *state)
{
    PyObject *type, *error, *traceback, *failure;
    if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        return NULL;
    }
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    failure = PyObject_CallFunctionObjArgs(state->not_utf8, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return failure;
}

/* bytes, or the CloseMessage that is the failure. */
static PyObject *
inflate(const State *state, PyObject *deflate, PyObject *buffer, const unsigned char *bytes, Py_ssize_t body,
        Py_ssize_t length, PyObject *limit)
{
    PyObject *payload = NULL, *inflated;
    if (length <= SMALL) {
        payload = PyBytes_FromStringAndSize((const char *)bytes + body, length);
    }
    else {
        PyObject *view = PyMemoryView_FromObject(buffer);
        PyObject *from = PyLong_FromSsize_t(body);
        PyObject *to = PyLong_FromSsize_t(body + length);
        PyObject *slice = from == NULL || to == NULL ? NULL : PySlice_New(from, to, NULL);
        if (view != NULL && slice != NULL) {
            payload = PyObject_GetItem(view, slice);
        }
        Py_XDECREF(view);
        Py_XDECREF(from);
        Py_XDECREF(to);
        Py_XDECREF(slice);
    }
    if (payload == NULL) {
        return NULL;
    }
    PyObject *arguments[] = {deflate, payload, limit, Py_True};
    inflated = PyObject_VectorcallMethod(state->inflate, arguments, 3, state->final);
    Py_DECREF(payload);
    return inflated;
}

static PyObject *
stopped(uint64_t start, uint64_t needed, PyObject *failure)
{
    return Py_BuildValue("KKO", (unsigned long long)start, (unsigned long long)needed,
                         failure == NULL ? Py_None : failure);
}

static PyObject *
read_all(const State *state, PyObject *buffer, const unsigned char *bytes, uint64_t end, uint64_t start,
         PyObject *limit_object, PyObject *deflate, PyObject *messages)
{
    /* Clipped where it is larger than any buffer can be. */
    Py_ssize_t clipped = PyNumber_AsSsize_t(limit_object, NULL);
    uint64_t limit, stop, given = 0;
    if (clipped == -1 && PyErr_Occurred()) {
        return NULL;
    }
    limit = clipped < 0 ? 0 : (uint64_t)clipped;
    for (; start + 2 <= end; start = stop) {
        unsigned char first = bytes[start];
        uint64_t length = bytes[start + 1];
        uint64_t body = start + 2;
        int is_compressed = first & COMPRESSED;
        int is_text = first & TEXT;
        PyObject *message, *payload = NULL;
        int status;

        if ((first & ~COMPRESSED) != (FINAL | TEXT) && (first & ~COMPRESSED) != (FINAL | BINARY)) {
            return stopped(start, 0, NULL);
        }
        if (is_compressed && deflate == Py_None) {
            return stopped(start, 0, NULL);
        }
        if (length >= 126) {
            uint64_t shortest = length == 126 ? 126 : 1 << 16;
            if (length & MASKED) {
                return stopped(start, 0, NULL);
            }
            body += length == 126 ? 2 : 8;
            if (body > end) {
                return stopped(start, body, NULL);
            }
            length = 0;
            for (uint64_t place = start + 2; place < body; place++) {
                length = length << 8 | bytes[place];
            }
            if (length < shortest || length >> 63) {
                return stopped(start, 0, NULL);
            }
        }
        /* most_compressed() of deflate.py, without an overflow for any limit. */
        if (length > limit && !(is_compressed && length <= limit + limit / 8 + limit / 64 + 64)) {
            return stopped(start, 0, NULL);
        }
        stop = body + length;
        if (stop > end) {
            return stopped(start, stop, NULL);
        }
        if (is_compressed) {
            payload = inflate(state, deflate, buffer, bytes, (Py_ssize_t)body, (Py_ssize_t)length, limit_object);
            if (payload == NULL) {
                return NULL;
            }
            if (!PyBytes_CheckExact(payload)) {
                PyObject *result = NULL;
                if (PyObject_TypeCheck(payload, (PyTypeObject *)state->close_message)) {
                    result = stopped(start, 0, payload);
                }
                else {
                    PyErr_Format(PyExc_TypeError, "inflate() gave %.100s", Py_TYPE(payload)->tp_name);
                }
                Py_DECREF(payload);
                return result;
            }
            given += (uint64_t)PyBytes_GET_SIZE(payload);
        }
        if (is_text) {
            const char *from = payload == NULL ? (const char *)bytes + body : PyBytes_AS_STRING(payload);
            Py_ssize_t size = payload == NULL ? (Py_ssize_t)length : PyBytes_GET_SIZE(payload);
            PyObject *text = PyUnicode_DecodeUTF8(from, size, NULL);
            Py_XDECREF(payload);
            if (text == NULL) {
                PyObject *result = NULL, *failure = failure_of_text(state);
                if (failure != NULL) {
                    result = stopped(start, 0, failure);
                    Py_DECREF(failure);
                }
                return result;
            }
            message = make_message(&state->text, text);
        }
        else {
            if (payload == NULL) {
                payload = PyBytes_FromStringAndSize((const char *)bytes + body, (Py_ssize_t)length);
            }
            message = make_message(&state->binary, payload);
        }
        if (message == NULL) {
            return NULL;
        }
        status = PyList_Append(messages, message);
        Py_DECREF(message);
        if (status < 0) {
            return NULL;
        }
        if (given >= ENOUGH) {
            return stopped(stop, stop, NULL);
        }
    }
    return stopped(start, start + 2, NULL);
}

static PyObject *
read_messages(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *result;
    Py_buffer view;
    Py_ssize_t start;
    if (count != 5) {
        return PyErr_Format(PyExc_TypeError, "read_messages() takes 5 arguments, not %zd", count);
    }
    if (!PyList_Check(arguments[4])) {
        return PyErr_Format(PyExc_TypeError, "messages must be a list, not %.100s", Py_TYPE(arguments[4])->tp_name);
    }
    start = PyNumber_AsSsize_t(arguments[1], PyExc_OverflowError);
    if (start < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "start must not be negative");
        }
        return NULL;
    }
    if (PyObject_GetBuffer(arguments[0], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    result = read_all(state_of(module), arguments[0], view.buf, (uint64_t)view.len, (uint64_t)start, arguments[2],
                      arguments[3], arguments[4]);
    PyBuffer_Release(&view);
    return result;
}

/* Frames */

/* A key that was never used. The GIL guards it: between taking note of the keys and taking one, no Python runs. */
static int
take_key(State *state, unsigned char *key)
{
    if (state->keys_left < KEY) {
        PyObject *fresh = PyObject_CallMethod(state->os, "urandom", "i", KEYS);
        if (fresh == NULL) {
            return -1;
        }
        if (!PyBytes_Check(fresh) || PyBytes_GET_SIZE(fresh) != KEYS) {
            PyErr_SetString(PyExc_TypeError, "os.urandom() gave something else than it was asked for");
            Py_DECREF(fresh);
            return -1;
        }
        memcpy(state->keys, PyBytes_AS_STRING(fresh), KEYS);
        state->keys_left = KEYS;
        Py_DECREF(fresh);
    }
    memcpy(key, state->keys + KEYS - state->keys_left, KEY);
    state->keys_left -= KEY;
    return 0;
}

/* Eight bytes in one step, of which a compiler makes more. */
static void
mask(unsigned char *masked, const unsigned char *payload, Py_ssize_t length, const unsigned char *key)
{
    unsigned char twice[2 * KEY];
    uint64_t keys, piece;
    Py_ssize_t place = 0;
    memcpy(twice, key, KEY);
    memcpy(twice + KEY, key, KEY);
    memcpy(&keys, twice, sizeof(keys));
    for (; place + 8 <= length; place += 8) {
        memcpy(&piece, payload + place, 8);
        piece ^= keys;
        memcpy(masked + place, &piece, 8);
    }
    for (; place < length; place++) {
        masked[place] = payload[place] ^ key[place % KEY];
    }
}

static Py_ssize_t
write_header(unsigned char *header, int first, Py_ssize_t length)
{
    int bytes = length < 126 ? 0 : length < 1 << 16 ? 2 : 8;
    header[0] = (unsigned char)first;
    header[1] = (unsigned char)(MASKED | (bytes == 0 ? length : bytes == 2 ? 126 : 127));
    for (int place = 0; place < bytes; place++) {
        header[2 + place] = (unsigned char)((uint64_t)length >> 8 * (bytes - 1 - place));
    }
    return 2 + bytes;
}

static PyObject *
build(State *state, int first, const unsigned char *payload, Py_ssize_t length)
{
    unsigned char header[LONGEST_HEADER + KEY];
    unsigned char *start;
    Py_ssize_t size = write_header(header, first, length);
    PyObject *frame;
    if (length > PY_SSIZE_T_MAX - (Py_ssize_t)sizeof(header)) {
        return PyErr_NoMemory();
    }
    if (take_key(state, header + size) < 0) {
        return NULL;
    }
    size += KEY;
    frame = PyBytes_FromStringAndSize(NULL, size + length);
    if (frame == NULL) {
        return NULL;
    }
    start = (unsigned char *)PyBytes_AS_STRING(frame);
    memcpy(start, header, (size_t)size);
    mask(start + size, payload, length, header + size - KEY);
    return frame;
}

static PyObject *
encode(PyObject *module, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    int is_compressed = 0;
    long opcode;
    Py_buffer view;
    PyObject *frame;
    if (count != 2 || named > 1 ||
        (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "compressed") != 0)) {
        PyErr_SetString(PyExc_TypeError, "encode() takes an opcode, a payload, and the keyword compressed");
        return NULL;
    }
    if (named == 1) {
        is_compressed = PyObject_IsTrue(arguments[2]);
        if (is_compressed < 0) {
            return NULL;
        }
    }
    opcode = PyLong_AsLong(arguments[0]);
    if (opcode == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (opcode < 0 || opcode > 0xF) {
        return PyErr_Format(PyExc_ValueError, "an opcode is a number from 0 to 15, not %ld", opcode);
    }
    if (PyObject_GetBuffer(arguments[1], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    frame = build(state_of(module), FINAL | (is_compressed ? COMPRESSED : 0) | (int)opcode, view.buf, view.len);
    PyBuffer_Release(&view);
    return frame;
}

static PyObject *
forget_keys(PyObject *module, PyObject *unused)
{
    state_of(module)->keys_left = 0;
    Py_RETURN_NONE;
}

/* Turns */

/* An event loop enters the context of each task and of each callback that it runs, and leaves it again. */
static PyObject *
context_switches(PyObject *module, PyObject *unused)
{
    return PyLong_FromUnsignedLongLong(PyThreadState_Get()->context_ver);
}

/* The module */

/* Where a slot is, or -1 with an exception set. */
static Py_ssize_t
offset_of(PyObject *type, const char *name)
{
    Py_ssize_t offset = -1;
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    if (descriptor == NULL) {
        return -1;
    }
    if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
        const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        if (member->type == SLOT) {
            offset = member->offset;
        }
    }
    Py_DECREF(descriptor);
    if (offset < 0) {
        PyErr_Format(PyExc_ImportError, "%s is not a slot", name);
    }
    return offset;
}

static int
prepare(Maker *maker, PyObject *messages, const char *name, const char *kind)
{
    PyObject *type = PyObject_GetAttrString(messages, name);
    maker->type = (PyTypeObject *)type;
    maker->kind_value = PyUnicode_InternFromString(kind);
    if (type == NULL || maker->kind_value == NULL) {
        return -1;
    }
    if (!PyType_Check(type)) {
        PyErr_Format(PyExc_ImportError, "%s is not a class", name);
        return -1;
    }
    maker->data = offset_of(type, "data");
    maker->kind = maker->data < 0 ? -1 : offset_of(type, "kind");
    return maker->kind < 0 ? -1 : 0;
}

static int
register_at_fork(PyObject *module, PyObject *os)
{
    PyObject *result = NULL;
    PyObject *function = PyObject_GetAttrString(os, "register_at_fork");
    PyObject *forget = PyObject_GetAttrString(module, "forget_keys");
    PyObject *nothing = PyTuple_New(0);
    PyObject *keywords = forget == NULL ? NULL : Py_BuildValue("{sO}", "after_in_child", forget);
    if (function == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        /* Windows has no fork. */
        PyErr_Clear();
        result = Py_None;
        Py_INCREF(result);
    }
    else if (function != NULL && nothing != NULL && keywords != NULL) {
        result = PyObject_Call(function, nothing, keywords);
    }
    Py_XDECREF(function);
    Py_XDECREF(forget);
    Py_XDECREF(nothing);
    Py_XDECREF(keywords);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
execute(PyObject *module)
{
    State *state = state_of(module);
    PyObject *messages = PyImport_ImportModule("zapros_websocket._protocol.messages");
    int status;
    if (messages == NULL) {
        return -1;
    }
    status = prepare(&state->text, messages, "TextMessage", "text");
    if (status == 0) {
        status = prepare(&state->binary, messages, "BinaryMessage", "binary");
    }
    if (status == 0) {
        state->close_message = PyObject_GetAttrString(messages, "CloseMessage");
        state->not_utf8 = PyObject_GetAttrString(messages, "not_utf8");
        state->os = PyImport_ImportModule("os");
        state->inflate = PyUnicode_InternFromString("inflate");
        state->final = Py_BuildValue("(s)", "final");
        if (state->close_message == NULL || state->not_utf8 == NULL || state->os == NULL || state->inflate == NULL ||
            state->final == NULL) {
            status = -1;
        }
        else if (!PyType_Check(state->close_message)) {
            PyErr_SetString(PyExc_ImportError, "CloseMessage is not a class");
            status = -1;
        }
    }
    Py_DECREF(messages);
    return status == 0 ? register_at_fork(module, state->os) : status;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = state_of(module);
    Maker *makers[] = {&state->text, &state->binary};
    for (int index = 0; index < 2; index++) {
        Py_VISIT(makers[index]->type);
    }
    Py_VISIT(state->close_message);
    Py_VISIT(state->not_utf8);
    Py_VISIT(state->os);
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = state_of(module);
    Maker *makers[] = {&state->text, &state->binary};
    for (int index = 0; index < 2; index++) {
        Py_CLEAR(makers[index]->type);
        Py_CLEAR(makers[index]->kind_value);
    }
    Py_CLEAR(state->close_message);
    Py_CLEAR(state->not_utf8);
    Py_CLEAR(state->os);
    Py_CLEAR(state->inflate);
    Py_CLEAR(state->final);
    return 0;
}

static void
free_module(void *module)
{
    clear((PyObject *)module);
}

/* The casts go by way of a function without parameters, which no compiler warns of. */
static PyMethodDef methods[] = {
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL | METH_KEYWORDS,
     "encode(opcode, payload, *, compressed=False)\n--\n\nA final data frame of a client, masked."},
    {"read_messages", (PyCFunction)(void (*)(void))read_messages, METH_FASTCALL,
     "read_messages(buffer, start, limit, deflate, messages, /)\n--\n\nAppend the messages that stand at start."},
    {"forget_keys", forget_keys, METH_NOARGS, "forget_keys()\n--\n\nUse no key that was there before."},
    {"context_switches", context_switches, METH_NOARGS,
     "context_switches()\n--\n\nA number that is another one in each turn of the scheduler."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_speedups",
    .m_doc = "Data frames to bytes and back, in C.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
