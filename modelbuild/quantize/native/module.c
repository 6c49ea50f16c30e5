/* modelbuild.quantize._native: the kernels for Python.
 *
 * Everything a caller could get wrong is checked here, before the kernels run; they trust their arguments. The lock of
 * the interpreter is released while they run, so one call a thread is how to use several cores.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <string.h>

#include "kernels.h"

#if defined __x86_64__
#define HAS_X86_LEVELS 1
#endif

static int runs_baseline(void) { return 1; }

#ifdef HAS_X86_LEVELS
static int runs_avx2(void) { return __builtin_cpu_supports("avx2"); }

static int runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

/* Slowest first. */
static const struct {
    const level *level;
    int (*runs_here)(void);
} all_levels[] = {
    {&level_baseline, runs_baseline},
#ifdef HAS_X86_LEVELS
    {&level_avx2, runs_avx2},
    {&level_avx512, runs_avx512},
#endif
};

#define LEVEL_COUNT (sizeof all_levels / sizeof *all_levels)

static const level *best_level(void)
{
    const level *best = NULL;
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (all_levels[i].runs_here()) best = all_levels[i].level;
    }
    return best;
}

static const level *find_level(const char *name)
{
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(all_levels[i].level->name, name) == 0 && all_levels[i].runs_here()) return all_levels[i].level;
    }
    PyErr_Format(PyExc_ValueError, "this machine has no code path named '%s'", name);
    return NULL;
}

/* What a buffer has to be: a format of the struct module, and its size. */
typedef struct {
    const char *role;
    char format;
    Py_ssize_t item_bytes;
    int writable;
} wanted_buffer;

static const char *bare_format(const char *format)
{
    if (!format) return "B";
    return *format == '@' || *format == '=' || *format == '<' ? format + 1 : format;
}

/* Takes a C-contiguous, aligned buffer; gives 0, or -1 with an exception set and nothing held. */
static int take_buffer(PyObject *object, const wanted_buffer *wanted, Py_buffer *view)
{
    const int flags = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (wanted->writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) return -1;
    const char *format = bare_format(view->format);
    if (view->itemsize != wanted->item_bytes || format[0] != wanted->format || format[1] != '\0') {
        PyErr_Format(PyExc_TypeError, "%s: items of format '%c' expected, found '%s' of %zd bytes", wanted->role,
                     wanted->format, format, view->itemsize);
    } else if (view->len > 0 && (uintptr_t)view->buf % (size_t)wanted->item_bytes != 0) {
        PyErr_Format(PyExc_ValueError, "%s: not aligned to %zd bytes", wanted->role, wanted->item_bytes);
    } else {
        return 0;
    }
    PyBuffer_Release(view);
    return -1;
}

static int overlap(const Py_buffer *a, const Py_buffer *b)
{
    const uintptr_t a_start = (uintptr_t)a->buf, b_start = (uintptr_t)b->buf;
    return a_start < b_start + (size_t)b->len && b_start < a_start + (size_t)a->len;
}

static const wanted_buffer WEIGHTS = {"weights", 'f', 4, 0};
static const wanted_buffer IMPORTANCE = {"importance", 'f', 4, 0};
static const wanted_buffer PACKED = {"out", 'B', 1, 1};

static const packer *find_packer(const level *level, int type, int weighted)
{
    const packer *p = type >= 0 && type < TYPE_COUNT ? &level->packers[type] : NULL;
    if (p && p->plain && !weighted) return p;
    if (p && weighted && (p->weighted || p->ignores_importance)) return p;
    PyErr_Format(PyExc_ValueError, "no kernel packs type %d%s", type, weighted ? " with importance" : "");
    return NULL;
}

static const char GRID_NAME[] = "modelbuild.grid";

/* The grid of a capsule, if the type needs one and it has the right shape; gives 0, or -1 with an exception set. */
static int take_grid(PyObject *object, const packer *p, const grid **g)
{
    *g = NULL;
    if (!p->grid_points) return 0;
    if (object == Py_None) {
        PyErr_SetString(PyExc_ValueError, "grid: this type needs one, see make_grid()");
        return -1;
    }
    *g = PyCapsule_GetPointer(object, GRID_NAME);
    if (!*g) return -1;
    if ((*g)->points == p->grid_points && (*g)->size == p->grid_size && (*g)->base == (p->grid_size == 8 ? 3 : 8))
        return 0;
    PyErr_Format(PyExc_ValueError, "grid: %d points of %d levels expected, found %d of %d", p->grid_points,
                 p->grid_size, (*g)->points, (*g)->size);
    return -1;
}

/* Checks sizes and packs; gives the index of a non-finite weight, count for none, or -1 with an exception set. */
static Py_ssize_t pack_buffers(const level *level, const packer *p, const grid *g, Py_ssize_t columns,
                               const Py_buffer *weights, const Py_buffer *importance, const Py_buffer *out)
{
    const Py_ssize_t count = weights->len / 4;
    if (columns <= 0 || columns % p->block_weights != 0) {
        PyErr_Format(PyExc_ValueError, "columns: a positive multiple of %d expected, found %zd", p->block_weights,
                     columns);
        return -1;
    }
    if (count % columns != 0) {
        PyErr_Format(PyExc_ValueError, "weights: %zd values are not whole rows of %zd", count, columns);
        return -1;
    }
    if (importance && importance->len / 4 != columns) {
        PyErr_Format(PyExc_ValueError, "importance: %zd values expected, found %zd", columns, importance->len / 4);
        return -1;
    }
    if (out->len != count / p->block_weights * p->block_bytes) {
        PyErr_Format(PyExc_ValueError, "out: %zd bytes expected, found %zd", count / p->block_weights * p->block_bytes,
                     out->len);
        return -1;
    }
    if (overlap(weights, out) || (importance && overlap(importance, out))) {
        PyErr_SetString(PyExc_ValueError, "out: must not overlap what is read");
        return -1;
    }
    const pack_job job = {
        .packer = p,
        .weights = weights->buf,
        .importance = importance ? importance->buf : NULL,
        .grid = g,
        .count = (size_t)count,
        .columns = (size_t)columns,
        .out = out->buf,
    };
    size_t end;
    Py_BEGIN_ALLOW_THREADS
        end = level->pack(&job);
    Py_END_ALLOW_THREADS
    if (end == PACK_FAILED) PyErr_NoMemory();
    return end == PACK_FAILED ? -1 : (Py_ssize_t)end;
}

PyDoc_STRVAR(pack_doc,
             "pack(type, weights, columns, importance, out, level, grid=None)\n--\n\n"
             "Pack rows of float32 weights into the blocks of a GGUF type.\n\n"
             "type: the type's number; weights: float32, C order, whole rows of columns values; importance: None or\n"
             "columns float32 values; out: uint8, exactly the packed size; level: a name of levels();\n"
             "grid: what make_grid() gave, for types that need one.\n"
             "Returns the index of the first weight that is not finite, or None; after an index, out is unfinished.\n"
             "Raises ValueError or TypeError for arguments that do not fit together.");

static PyObject *native_pack(PyObject *module, PyObject *args)
{
    (void)module;
    int type;
    Py_ssize_t columns, end = -1, count = 0;
    PyObject *weights_object, *importance_object, *out_object, *grid_object = Py_None;
    const char *name;
    const grid *g;
    if (!PyArg_ParseTuple(args, "iOnOOs|O:pack", &type, &weights_object, &columns, &importance_object, &out_object,
                          &name, &grid_object))
        return NULL;
    const int weighted = importance_object != Py_None;
    const level *level = find_level(name);
    const packer *p = level ? find_packer(level, type, weighted) : NULL;
    if (!p || take_grid(grid_object, p, &g) < 0) return NULL;

    Py_buffer weights, importance, out;
    if (take_buffer(weights_object, &WEIGHTS, &weights) < 0) return NULL;
    if (!weighted || take_buffer(importance_object, &IMPORTANCE, &importance) == 0) {
        if (take_buffer(out_object, &PACKED, &out) == 0) {
            count = weights.len / 4;
            end = pack_buffers(level, p, g, columns, &weights, weighted ? &importance : NULL, &out);
            PyBuffer_Release(&out);
        }
        if (weighted) PyBuffer_Release(&importance);
    }
    PyBuffer_Release(&weights);
    if (end < 0) return NULL;
    if (end == count) Py_RETURN_NONE;
    return PyLong_FromSsize_t(end);
}

static void free_capsule(PyObject *capsule) { grid_free(PyCapsule_GetPointer(capsule, GRID_NAME)); }

PyDoc_STRVAR(make_grid_doc,
             "make_grid(numbers, size, base, shells)\n--\n\n"
             "A grid for pack().\n\n"
             "numbers: uint16, of each point: level 0 + level 1 * base + level 2 * base**2 and so on, for\n"
             "size levels. A combination that is no point gets as neighbours the points at the least\n"
             "`shells` distances. Raises ValueError for numbers out of range or given twice.");

static PyObject *native_make_grid(PyObject *module, PyObject *args)
{
    static const wanted_buffer wanted = {"numbers", 'H', 2, 0};
    PyObject *numbers_object;
    int size, base, shells;
    Py_buffer numbers;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oiii:make_grid", &numbers_object, &size, &base, &shells)) return NULL;
    if (take_buffer(numbers_object, &wanted, &numbers) < 0) return NULL;
    grid *g = NULL;
    if (numbers.len / 2 <= GRID_MOST_POINTS) {
        Py_BEGIN_ALLOW_THREADS
            g = grid_create(size, base, shells, numbers.buf, (int)(numbers.len / 2));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&numbers);
    if (!g) {
        PyErr_SetString(PyExc_ValueError, "numbers: not the points of such a grid");
        return NULL;
    }
    PyObject *const capsule = PyCapsule_New(g, GRID_NAME, free_capsule);
    if (!capsule) grid_free(g);
    return capsule;
}

PyDoc_STRVAR(find_nonfinite_doc, "find_nonfinite(weights)\n--\n\n"
                                 "Index of the first NaN or infinity in a float32 buffer, or None.");

static PyObject *native_find_nonfinite(PyObject *module, PyObject *weights_object)
{
    (void)module;
    Py_buffer weights;
    if (take_buffer(weights_object, &WEIGHTS, &weights) < 0) return NULL;
    const size_t count = (size_t)weights.len / 4;
    size_t at;
    Py_BEGIN_ALLOW_THREADS
        at = best_level()->find_nonfinite(weights.buf, count);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&weights);
    if (at == count) Py_RETURN_NONE;
    return PyLong_FromSize_t(at);
}

static const wanted_buffer FLOATS = {"from", 'f', 4, 0}, FLOATS_OUT = {"to", 'f', 4, 1};
static const wanted_buffer HALVES = {"from", 'H', 2, 0}, HALVES_OUT = {"to", 'H', 2, 1};

/* Takes two buffers of as many items each, that do not overlap. */
static int take_pair(PyObject *args, const wanted_buffer *from, const wanted_buffer *to, Py_buffer *views)
{
    PyObject *from_object, *to_object;
    if (!PyArg_ParseTuple(args, "OO", &from_object, &to_object)) return -1;
    if (take_buffer(from_object, from, &views[0]) < 0) return -1;
    if (take_buffer(to_object, to, &views[1]) < 0) {
        PyBuffer_Release(&views[0]);
        return -1;
    }
    if (views[0].len / from->item_bytes == views[1].len / to->item_bytes && !overlap(&views[0], &views[1])) return 0;
    PyErr_SetString(PyExc_ValueError, "from, to: as many items, in separate memory, expected");
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    return -1;
}

static PyObject *widen(PyObject *args, void (*convert)(const uint16_t *, float *, size_t))
{
    Py_buffer views[2];
    if (take_pair(args, &HALVES, &FLOATS_OUT, views) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
        convert(views[0].buf, views[1].buf, (size_t)views[0].len / 2);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    Py_RETURN_NONE;
}

static PyObject *narrow(PyObject *args, void (*convert)(const float *, uint16_t *, size_t))
{
    Py_buffer views[2];
    if (take_pair(args, &FLOATS, &HALVES_OUT, views) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS
        convert(views[0].buf, views[1].buf, (size_t)views[0].len / 4);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&views[0]);
    PyBuffer_Release(&views[1]);
    Py_RETURN_NONE;
}

static PyObject *native_f16_to_f32(PyObject *m, PyObject *args)
{
    (void)m;
    return widen(args, best_level()->f16_to_f32);
}
static PyObject *native_bf16_to_f32(PyObject *m, PyObject *args)
{
    (void)m;
    return widen(args, best_level()->bf16_to_f32);
}
static PyObject *native_f32_to_f16(PyObject *m, PyObject *args)
{
    (void)m;
    return narrow(args, best_level()->f32_to_f16);
}
static PyObject *native_f32_to_bf16(PyObject *m, PyObject *args)
{
    (void)m;
    return narrow(args, best_level()->f32_to_bf16);
}

PyDoc_STRVAR(levels_doc, "levels()\n--\n\nNames of the code paths that this machine can run, slowest first.");

static PyObject *native_levels(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    PyObject *names = PyList_New(0);
    for (size_t i = 0; names && i < LEVEL_COUNT; i++) {
        if (!all_levels[i].runs_here()) continue;
        PyObject *name = PyUnicode_FromString(all_levels[i].level->name);
        if (!name || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

PyDoc_STRVAR(packers_doc,
             "packers()\n--\n\n"
             "For each type that has a kernel: (type, weights a block, bytes a block, without importance,\n"
             "with importance, needs a grid); the last three are true or false.");

static PyObject *native_packers(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    PyObject *rows = PyList_New(0);
    for (int type = 0; rows && type < TYPE_COUNT; type++) {
        const packer *p = &level_baseline.packers[type];
        if (!p->plain && !p->weighted) continue;
        PyObject *row = Py_BuildValue("(iiiOOO)", type, p->block_weights, p->block_bytes, p->plain ? Py_True : Py_False,
                                      p->weighted || p->ignores_importance ? Py_True : Py_False,
                                      p->grid_points ? Py_True : Py_False);
        if (!row || PyList_Append(rows, row) < 0) Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

static PyMethodDef methods[] = {
    {"pack", native_pack, METH_VARARGS, pack_doc},
    {"make_grid", native_make_grid, METH_VARARGS, make_grid_doc},
    {"packers", native_packers, METH_NOARGS, packers_doc},
    {"levels", native_levels, METH_NOARGS, levels_doc},
    {"find_nonfinite", native_find_nonfinite, METH_O, find_nonfinite_doc},
    {"f16_to_f32", native_f16_to_f32, METH_VARARGS,
     "f16_to_f32(from, to)\n--\n\nWiden uint16 halves to float32, exactly."},
    {"bf16_to_f32", native_bf16_to_f32, METH_VARARGS,
     "bf16_to_f32(from, to)\n--\n\nWiden uint16 bfloats to float32, exactly."},
    {"f32_to_f16", native_f32_to_f16, METH_VARARGS,
     "f32_to_f16(from, to)\n--\n\nRound float32 to uint16 halves, to nearest even; NaN becomes quiet."},
    {"f32_to_bf16", native_f32_to_bf16, METH_VARARGS,
     "f32_to_bf16(from, to)\n--\n\nRound float32 to uint16 bfloats, to nearest even; NaN becomes quiet."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "_native",
    "Kernels that pack weights into GGUF block types.",
    0,
    methods,
    slots,
    NULL,
    NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
