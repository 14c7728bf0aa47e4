;; What of the language is written in itself. Names that begin with % are not for programs.

(define (list-set! l k x) (set-car! (list-tail l k) x))
(define (list-ref l k) (car (list-tail l k)))

(define (member x l . same)
  (if (null? same)
      (%member x l)
      (let loop ((l l))
        (cond ((null? l) #f) (((car same) x (car l)) l) (else (loop (cdr l)))))))

(define (assoc x l . same)
  (if (null? same)
      (%assoc x l)
      (let loop ((l l))
        (cond ((null? l) #f) (((car same) x (caar l)) (car l)) (else (loop (cdr l)))))))

;; (%any-null? '((1) ())) => #t
(define (%any-null? ls)
  (and (pair? ls) (or (not (pair? (car ls))) (%any-null? (cdr ls)))))

(define (%map1 f l)
  (let loop ((l l) (done '()))
    (if (pair? l) (loop (cdr l) (cons (f (car l)) done)) (reverse done))))

(define (map f l . more)
  (if (null? more)
      (%map1 f l)
      (let loop ((ls (cons l more)) (done '()))
        (if (%any-null? ls)
            (reverse done)
            (loop (%map1 cdr ls) (cons (apply f (%map1 car ls)) done))))))

(define (for-each f l . more)
  (if (null? more)
      (let loop ((l l))
        (if (pair? l) (begin (f (car l)) (loop (cdr l)))))
      (let loop ((ls (cons l more)))
        (if (not (%any-null? ls))
            (begin (apply f (%map1 car ls)) (loop (%map1 cdr ls)))))))

(define (filter keep? l)
  (let loop ((l l) (done '()))
    (cond ((null? l) (reverse done)) ((keep? (car l)) (loop (cdr l) (cons (car l) done))) (else (loop (cdr l) done)))))

(define (fold-left f x l) (if (null? l) x (fold-left f (f x (car l)) (cdr l))))

(define (list-sort less? l)
  (define (merge a b done)
    (cond ((null? a) (append (reverse done) b))
          ((null? b) (append (reverse done) a))
          ((less? (car b) (car a)) (merge a (cdr b) (cons (car b) done)))
          (else (merge (cdr a) b (cons (car a) done)))))
  (define (sort l n)
    (if (< n 2)
        (if (= n 0) '() (list (car l)))
        (let ((half (quotient n 2)))
          (merge (sort l half) (sort (list-tail l half) (- n half)) '()))))
  (sort l (length l)))

(define (vector-map f . vs) (list->vector (apply map f (%map1 vector->list vs))))
(define (vector-for-each f . vs) (apply for-each f (%map1 vector->list vs)))
(define (string-map f . ss) (list->string (apply map f (%map1 string->list ss))))
(define (string-for-each f . ss) (apply for-each f (%map1 string->list ss)))

(define (square x) (* x x))
(define (truncate/ a b) (values (truncate-quotient a b) (truncate-remainder a b)))
(define (floor/ a b) (values (floor-quotient a b) (floor-remainder a b)))
(define (exact-integer-sqrt n) (let ((r (%isqrt n))) (values r (- n (* r r)))))
(define exact->inexact inexact)
(define inexact->exact exact)

;; Values and continuations.

(define (call-with-values producer consumer) (%apply-values consumer (producer)))

;; (%rewind to) leaves and enters what dynamic-wind has wound, from where the program is to where it was.
(define (%rewind to)
  (let ((from (%winders)))
    (if (not (eq? from to))
        (let ((n (length from)) (k (length to)))
          (cond ((>= n k)
                 (%set-winders! (cdr from))
                 ((cdar from))
                 (%rewind to))
                (else
                 (%rewind (cdr to))
                 ((caar to))
                 (%set-winders! to)))))))

(define (call-with-current-continuation f)
  (%call/cc
   (lambda (k)
     (let ((winders (%winders)))
       (f (lambda results
            (if (not (eq? winders (%winders))) (%rewind winders))
            (apply k results)))))))
(define call/cc call-with-current-continuation)

(define (dynamic-wind before thunk after)
  (let ((winders (cons (cons before after) (%winders)))) ; there may be no memory after (before)
    (before)
    (%set-winders! winders))
  (call-with-values thunk
    (lambda results
      (%set-winders! (cdr (%winders)))
      (after)
      (apply values results))))

;; Errors.

(define (with-exception-handler handler thunk)
  (if (not (procedure? handler)) (error "with-exception-handler: wants a procedure, got" handler))
  (let ((outer (%handlers)))
    (%set-handlers! (cons handler outer))
    (call-with-values thunk
      (lambda results
        (%set-handlers! outer)
        (apply values results)))))

(define (raise x)
  (let ((handlers (%handlers)))
    (if (null? handlers)
        (%uncaught x)
        (begin
          (%set-handlers! (cdr handlers))
          ((car handlers) x)
          (error "a handler has returned from what was raised:" x)))))

(define (raise-continuable x)
  (let ((handlers (%handlers)))
    (if (null? handlers)
        (%uncaught x)
        (begin
          (%set-handlers! (cdr handlers))
          (call-with-values (lambda () ((car handlers) x))
            (lambda results
              (%set-handlers! handlers)
              (apply values results)))))))

(define (error message . irritants) (raise (%condition message irritants 'error)))
(define (read-error? x) (and (error-object? x) (eq? (%condition-kind x) 'read)))
(define (file-error? x) (and (error-object? x) (eq? (%condition-kind x) 'file)))
(define (out-of-memory? x) (and (error-object? x) (eq? (%condition-kind x) 'memory)))

(define-syntax guard
  (syntax-rules ()
    ((_ (var clause ...) body ...)
     ((%call/cc
       (lambda (guard-k)
         (let ((winders (%winders)))
           (with-exception-handler
            (lambda (condition)
              (if (not (eq? winders (%winders))) (%rewind winders))
              (guard-k (lambda () (let ((var condition)) (%guard-clauses (raise-continuable condition) clause ...)))))
            (lambda ()
              (call-with-values (lambda () body ...)
                (lambda results (lambda () (apply values results)))))))))))))

(define-syntax %guard-clauses
  (syntax-rules (else)
    ((_ again (else body ...)) (cond (else body ...)))
    ((_ again clause) (cond clause (else again)))
    ((_ again clause more ...) (%guard-clauses-2 again () clause more ...))))

(define-syntax %guard-clauses-2
  (syntax-rules (else)
    ((_ again (done ...) (else body ...)) (cond done ... (else body ...)))
    ((_ again (done ...)) (cond done ... (else again)))
    ((_ again (done ...) clause more ...) (%guard-clauses-2 again (done ... clause) more ...))))

;; Derived forms.

(define-syntax let-values
  (syntax-rules ()
    ((_ (binding ...) body ...) (%let-values (binding ...) () (let () body ...)))))

(define-syntax %let-values
  (syntax-rules ()
    ((_ () ((name temp) ...) body) (let ((name temp) ...) body))
    ((_ ((formals x) more ...) bound body) (%let-values-1 formals () x (more ...) bound body))))

(define-syntax %let-values-1
  (syntax-rules ()
    ((_ () (temp ...) x more bound body)
     (call-with-values (lambda () x) (lambda (temp ...) (%let-values more bound body))))
    ((_ (name . names) (temp ...) x more (b ...) body)
     (%let-values-1 names (temp ... t) x more (b ... (name t)) body))
    ((_ name (temp ...) x more (b ...) body)
     (call-with-values (lambda () x) (lambda (temp ... . t) (%let-values more (b ... (name t)) body))))))

(define-syntax let*-values
  (syntax-rules ()
    ((_ () body ...) (let () body ...))
    ((_ (binding more ...) body ...) (let-values (binding) (let*-values (more ...) body ...)))))

(define-syntax case-lambda
  (syntax-rules ()
    ((_ (formals body ...) ...) (%case-lambda (lambda formals body ...) ...))))

(define-syntax delay-force
  (syntax-rules ()
    ((_ x) (%promise (cons #f (lambda () x))))))

(define-syntax delay
  (syntax-rules ()
    ((_ x) (delay-force (%promise (cons #t x))))))

(define (make-promise x) (if (promise? x) x (%promise (cons #t x))))

(define (force p)
  (if (not (promise? p))
      p
      (let loop ()
        (let ((box (%promise-box p)))
          (if (car box)
              (cdr box)
              (let* ((q ((cdr box))) (box (%promise-box p)))
                (if (not (car box))
                    (let ((next (%promise-box q)))
                      (set-car! box (car next))
                      (set-cdr! box (cdr next))
                      (%set-promise-box! q box)))
                (loop)))))))

(define %parameter (list 'parameter))

(define (make-parameter init . converter)
  (let* ((convert (if (null? converter) (lambda (x) x) (car converter)))
         (value (convert init)))
    (lambda args
      (cond ((null? args) value)
            ((and (eq? (car args) %parameter) (null? (cddr args))) (convert (cadr args)))
            ((eq? (car args) %parameter) (set! value (cadr args)))
            (else (error "a parameter takes no arguments:" args))))))

(define-syntax parameterize
  (syntax-rules ()
    ((_ ((param value) ...) body ...)
     (%parameterize (list (cons param value) ...) (lambda () body ...)))))

(define (%parameterize bindings thunk)
  (let* ((params (%map1 car bindings))
         (values (%map1 (lambda (b) ((car b) %parameter (cdr b))) bindings))
         (swap (lambda ()
                 (let ((old (%map1 (lambda (p) (p)) params)))
                   (for-each (lambda (p v) (p %parameter v #t)) params values)
                   (set! values old)))))
    (dynamic-wind swap thunk swap)))

;; Ports.

(define current-input-port (make-parameter (%console #t)))
(define current-output-port (make-parameter (%console #f)))
(define current-error-port (make-parameter (%console #f)))

(define-syntax %with-port
  (syntax-rules ()
    ((_ default (name f) ...)
     (begin (define (name x . port) (f x (if (null? port) (default) (car port)))) ...))))
(%with-port current-output-port (display %display) (write %write) (write-shared %write-shared) (write-simple %write) (write-u8 %write-u8))
(%with-port current-input-port (read-string %read-string))

(define-syntax %from-port
  (syntax-rules ()
    ((_ (name f) ...)
     (begin (define (name . port) (f (if (null? port) (current-input-port) (car port)))) ...))))
(%from-port (read %read) (read-char %read-char) (peek-char %peek-char) (read-line %read-line))

(define (read-u8 port) (%read-u8 port #f))
(define (peek-u8 port) (%read-u8 port #t))
(define (char-ready? . port) #t)
(define (u8-ready? . port) #t)

(define (%optional port) (if (null? port) (current-output-port) (car port)))
(define (newline . port) (%display #\newline (%optional port)))
(define (write-char c . port)
  (if (not (char? c)) (error "write-char: wants a character, got" c))
  (%display c (%optional port)))
(define (write-string s . rest)
  (%display (if (or (null? rest) (null? (cdr rest))) (string-copy s) (apply string-copy s (cdr rest))) (%optional rest)))
(define (write-bytevector b port . range)
  (let ((part (apply bytevector-copy b range)))
    (do ((i 0 (+ i 1))) ((= i (bytevector-length part))) (write-u8 (bytevector-u8-ref part i) port))))
(define (read-bytevector n port)
  (let loop ((i 0) (done '()))
    (let ((b (if (< i n) (read-u8 port) (eof-object))))
      (cond ((not (eof-object? b)) (loop (+ i 1) (cons b done)))
            ((and (null? done) (> n 0)) b)
            (else (apply bytevector (reverse done)))))))
(define (flush-output-port . port) (%flush))
(define close-input-port close-port)
(define close-output-port close-port)
(define (call-with-port port f)
  (call-with-values (lambda () (f port)) (lambda results (close-port port) (apply values results))))

(define (exit . code) (%rewind '()) (apply %exit code))
(define emergency-exit %exit)

;; Hash tables, of SRFI 69.

(define-record-type hash-table (%hash-table same? hash buckets count) hash-table?
  (same? %same?) (hash %hasher) (buckets %buckets %set-buckets!) (count hash-table-count %set-count!))

;; What another procedure than these takes as the same may have any hash: all its keys are in one bucket.
(define (make-hash-table . same?)
  (let* ((same? (if (null? same?) equal? (car same?)))
         (hash (cond ((memq same? (list equal? string=?)) %hash)
                     ((memq same? (list eq? eqv?)) %hash-eq)
                     (else (lambda (key) 0)))))
    (%hash-table same? hash (make-vector 8 '()) 0)))

(define (%bucket t buckets key) (modulo ((%hasher t) key) (vector-length buckets)))

(define (%entry t key)
  (let ((same? (%same? t)))
    (let loop ((l (vector-ref (%buckets t) (%bucket t (%buckets t) key))))
      (cond ((null? l) #f) ((same? (caar l) key) (car l)) (else (loop (cdr l)))))))

(define (hash-table-ref t key . fail)
  (let ((e (%entry t key)))
    (cond (e (cdr e)) ((null? fail) (error "hash-table-ref: no such key:" key)) (else ((car fail))))))
(define (hash-table-ref/default t key default) (let ((e (%entry t key))) (if e (cdr e) default)))
(define (hash-table-contains? t key) (if (%entry t key) #t #f))

(define (%add! t buckets e)
  (let ((i (%bucket t buckets (car e))))
    (vector-set! buckets i (cons e (vector-ref buckets i)))))

(define (hash-table-set! t key x)
  (let ((e (%entry t key)))
    (if e
        (set-cdr! e x)
        (let* ((old (%buckets t))
               (n (+ (hash-table-count t) 1))
               (new (if (> n (* 2 (vector-length old))) (make-vector (* 2 (vector-length old)) '()) old)))
          (if (not (eq? new old)) ; the table stays as it is until all the memory is there
              (vector-for-each (lambda (l) (for-each (lambda (e) (%add! t new e)) l)) old))
          (%add! t new (cons key x))
          (%set-buckets! t new)
          (%set-count! t n)))))

(define (hash-table-update! t key f . fail)
  (hash-table-set! t key (f (apply hash-table-ref t key fail))))
(define (hash-table-update!/default t key f default)
  (hash-table-set! t key (f (hash-table-ref/default t key default))))

(define (hash-table-delete! t key)
  (let ((e (%entry t key)))
    (if e
        (let* ((b (%buckets t)) (i (%bucket t b key)))
          (vector-set! b i (filter (lambda (x) (not (eq? x e))) (vector-ref b i)))
          (%set-count! t (- (hash-table-count t) 1))))))

(define (hash-table->alist t)
  (fold-left (lambda (done l) (fold-left (lambda (done e) (cons (cons (car e) (cdr e)) done)) done l))
             '() (vector->list (%buckets t))))
(define (hash-table-keys t) (map car (hash-table->alist t)))
(define (hash-table-values t) (map cdr (hash-table->alist t)))
(define (hash-table-walk t f) (for-each (lambda (e) (f (car e) (cdr e))) (hash-table->alist t)))
